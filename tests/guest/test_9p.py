# SPDX-License-Identifier: BSD-2-Clause
"""Shared directories, as Linux mounts them."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import time

import p9_packages
import p9_work
from checks import attach, status, wait_for
from vm import PATIENCE, Skip


def shared(t, mode, machine):
    """What people do in a directory, in one boot; what the host then finds in it."""
    tree, fixed = t.tmp / "tree", t.tmp / "fixed"
    tree.mkdir()
    fixed.mkdir()
    (tree / "from-host").write_text("written by the host\n")
    (fixed / "file").write_text("fixed\n")
    for directory in tree / "many", fixed / "many":
        directory.mkdir()
        for i in range(1000):
            (directory / f"file{i}").touch()
    outside = t.tmp / "outside"
    outside.write_text("secret\n")
    os.symlink(outside, fixed / "way-out")
    os.mkfifo(fixed / "fifo")
    gone = t.tmp / "gone"
    gone.mkdir()
    with t.serve(f"9p,id=tree,path={tree},tag=tree,security=mapped-xattr,mode={mode}",
                 f"9p,id=fixed,path={fixed},ro=on,mode={mode}", f"9p,id=gone,path={gone},tag=gone,mode={mode}") as viodev:
        with t.guest(attach(viodev), machine=machine, tools=True, cpus=2, modules=["9p", "9pnet_virtio"]) as guest:
            p9_work.mount(guest, "tree", "/tree", msize=1048576)
            p9_work.mount(guest, "viodev", "/fixed", msize=8192)
            identity(guest, mode)
            for check in (files, verified, names, owners, many, read_only):
                check(guest)
            removed(guest, viodev, gone)
        for id in viodev.sockets:
            assert status(viodev, id)["driver-errors"] == 0, status(viodev, id)
    assert (tree / "copy").read_text() == "written by the host\n"
    assert len(os.listdir(tree / "many")) == 900
    assert sorted(os.listdir(fixed)) == ["fifo", "file", "many", "way-out"] and (fixed / "file").read_text() == "fixed\n"
    assert outside.read_text() == "secret\n"


def identity(guest, mode):
    """TRAP-16: virtio device 9; the PCI device of the mode."""
    ids = guest.check("cd /sys/bus/virtio/drivers/9pnet_virtio && cat virtio*/device virtio*/../device").split()
    assert ids == ["0x0009"] * 3 + ["0x1049" if mode == "modern" else "0x1009"] * 3, ids


def files(guest):
    """Files are read, written, appended to, cut, and still there when the name is gone."""
    guest.check("cd /tree && cp from-host copy && cmp from-host copy && dd if=/dev/urandom of=big bs=1M count=4 2>/dev/null && "
                "set -o pipefail; sum() { dd if=big bs=$1 2>/dev/null | md5sum; } && "
                "one=$(sum 1M) && two=$(sum 100k) && [ \"$one\" = \"$two\" ]")
    guest.check("cd /tree && echo one >f && echo two >>f && [ $(wc -c <f) = 8 ] && truncate -s 3 f && [ $(cat f) = one ]")
    guest.check("cd /tree && exec 3<big && rm big && [ $(dd bs=1M count=1 <&3 2>/dev/null | wc -c) = 1048576 ]")


def removed(guest, viodev, gone):
    """The log tells that the directory of a device was removed; one that is made in its place is exported."""
    (gone / "dir").mkdir()
    (gone / "dir/file").write_text("old\n")
    p9_work.mount(guest, "gone", "/gone", msize=8192)
    assert "was removed" not in viodev.messages, viodev.messages
    guest.check("(cd /gone/dir && exec 7<file && touch /tmp/opened && while [ ! -e /tmp/end ]; do sleep 0.1; done; "
                "cat <&7 >/tmp/old; ls >/tmp/ls 2>&1; touch /tmp/ended) </dev/null >/dev/null 2>&1 & "
                "while [ ! -e /tmp/opened ]; do sleep 0.1; done")
    shutil.rmtree(gone)
    guest.run("stat /gone; ls /gone")
    wait_for("the log", lambda: "gone: 9p: path= was removed on the host" in viodev.messages)
    gone.mkdir()
    (gone / "again").write_text("new\n")
    wait_for("the log", lambda: "gone: 9p: path= was made again on the host: exported" in viodev.messages)
    guest.check("[ $(cat /gone/again) = new ] && touch /gone/made")
    guest.check("touch /tmp/end; while [ ! -e /tmp/ended ]; do sleep 0.1; done; "
                "[ $(cat /tmp/old) = old ] && grep 'Stale file handle' /tmp/ls")
    assert sorted(os.listdir(gone)) == ["again", "made"]
    shutil.rmtree(gone)
    assert guest.run("cat /gone/again")[0] != 0
    wait_for("the log", lambda: viodev.messages.count("gone: 9p: path= was removed on the host") == 2)


def verified(guest):
    """fio's blocks are what was written, by several processes at once."""
    guest.check("cd /tree && fio --name=v --numjobs=3 --size=2M --bs=512-64k --rw=randwrite --ioengine=psync "
                "--verify=crc32c --verify_fatal=1 --randrepeat=0 --output-format=terse && rm v.*")


def names(guest):
    """Directories, renames, hard and symbolic links."""
    guest.check("cd /tree && mkdir -p a/b/c && echo x >a/b/c/x && mv a/b z && [ $(cat z/c/x) = x ] && ln z/c/x hard && "
                "[ $(stat -c %h hard) = 2 ] && ln -s z/c/x soft && [ $(cat soft) = x ] && [ $(readlink soft) = z/c/x ] && "
                "mv hard z/c/x && rm -r z a soft")
    assert guest.run("cd /tree && rmdir nothing")[0] != 0


def owners(guest):
    """security=mapped-xattr: owners, modes and special files are the guest's affair."""
    guest.check("cd /tree && echo x >own && chown 12:34 own && chmod 640 own && [ \"$(stat -c %u:%g:%a own)\" = 12:34:640 ] && "
                "mknod dev c 1 3 && [ -c dev ] && mkfifo pipe && [ -p pipe ] && rm own dev pipe")


def many(guest):
    """A big directory is listed whole, in one message and in many, and again after a part of it is gone."""
    guest.check("cd /tree/many && [ $(ls | wc -l) = 1000 ] && rm file?? && [ $(ls | wc -l) = 910 ] && rm file? && "
                "[ $(ls | grep -c file) = 900 ] && [ $(ls /fixed/many | sort -u | wc -l) = 1000 ]")


def read_only(guest):
    """hostile Q8, K18: nothing can be changed; links lead nowhere out; what is no file cannot be opened."""
    assert guest.check("cat /fixed/file") == "fixed\n"
    for command in ("echo x >/fixed/file", "rm /fixed/file", "mkdir /fixed/d", "chmod 600 /fixed/file", "mv /fixed/file /fixed/g",
                    "cat /fixed/way-out"):
        assert guest.run(command)[0] != 0, command


def test_legacy(t):
    """A directory through a legacy device on i440fx: files, names, owners, links, a big directory, a read-only one."""
    shared(t, "legacy", "pc")


def test_transitional(t):
    """The same of a transitional one, on q35."""
    shared(t, "transitional", "q35")


def test_modern(t):
    """The same of a modern one, on q35."""
    shared(t, "modern", "q35")


def test_exerciser(t):
    """What several processes do at random in a directory comes out as a model in memory says, with each kind of cache."""
    with t.serve(f"9p,id=tree,path={t.tmp},tag=tree") as viodev:
        shutil.copy(viodev.built("tests/guest/fsx"), t.tmp)
        with t.guest(attach(viodev), cpus=2, modules=p9_work.MODULES) as guest:
            for cache in p9_work.CACHES:
                p9_work.mount(guest, "tree", "/tree", cache)
                well, text = p9_work.fsx(guest, "/tree", leave_out="" if cache == "none" else p9_work.CACHED_LEAVE_OUT)
                assert well, f"cache={cache}\n{text}"
                guest.check("umount /tree")
        assert sorted(os.listdir(t.tmp)) == ["fsx"]


def test_work(t):
    """git, a compiler and a few of stress-ng's verified stressors in a directory."""
    with t.serve(f"9p,id=tree,path={t.tmp},tag=tree") as viodev, \
            t.guest(attach(viodev), cpus=2, tools="devel", memory="1G", modules=p9_work.MODULES) as guest:
        p9_work.mount(guest, "tree", "/tree")
        p9_work.compiler(guest, "/tree")
        for name in "dir", "flock", "getdent", "hdd", "locka", "lockofd", "rename", "xattr":
            well, text = p9_work.stress(guest, "/tree", name, 1)
            assert well, f"{name}\n{text}"
        guest.check("umount /tree")
        p9_work.mount(guest, "tree", "/tree", "loose")
        p9_work.git(guest, "/tree")
        assert status(viodev, "tree")["driver-errors"] == 0


def test_sqlite(t):
    """A database's writer is killed in a transaction, and its journal is rolled back; several write at once; a
    browser's profile."""
    with t.serve(f"9p,id=tree,path={t.tmp},tag=tree") as viodev:
        program = viodev.built("tests/guest/sqlite")
        if not os.path.exists(program):
            raise Skip("built without libsqlite3")
        shutil.copy(program, t.tmp)
        with t.guest(attach(viodev), cpus=2, modules=p9_work.MODULES) as guest:
            for cache in p9_work.CACHES:
                p9_work.mount(guest, "tree", "/tree", cache)
                guest.check(f"cp /tree/sqlite /tmp && /tmp/sqlite /tree/{cache}.db && "
                            f"mkdir /tree/{cache} && /tmp/sqlite profile /tree/{cache}", 2 * PATIENCE)
                guest.check("umount /tree")


# CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID SYS_ADMIN MKNOD SETFCAP
CAPABILITIES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 21 | 1 << 27 | 1 << 31


def test_passthrough(t):
    """security=passthrough: owners and special files are the host's, of mapped ids; the process may that and no more.
    Beside it directories of file systems that fail, and a driver that is unbound."""
    if os.geteuid() != 0:
        raise Skip("needs root")
    outer, t.tmp = t.tmp, t.tmp / "tree"
    t.tmp.mkdir()
    (t.tmp / "hosts").write_text("x\n")
    with failing_disks(outer) as disks, t.serve(
            f"9p,id=tree,path={t.tmp},tag=tree,security=passthrough,uidmap=0:100000:1000,gidmap=0:200000:1000",
            *(f"9p,id={name},path={path},tag={name}" for name, path in disks.items())) as viodev:
        with open(f"/proc/{status(viodev, 'tree')['pid']}/status", encoding="ascii") as lines:
            rights = dict(line.split(":\t") for line in lines)
        assert int(rights["CapEff"], 16) == CAPABILITIES and rights["NoNewPrivs"] == "1\n", rights
        peers = [arg for name, path in disks.items() for arg in (
            "-fsdev", f"local,id={name},path={path},security_model=none",
            "-device", f"virtio-9p-pci,fsdev={name},mount_tag=qemu-{name}")]
        with t.guest(peers, attach(viodev), cpus=2, modules=p9_work.MODULES) as guest:
            p9_work.mount(guest, "tree", "/tree")
            guest.check("cd /tree && echo x >f && chown 12:34 f && chmod 6751 f && [ \"$(stat -c %u:%g:%a f)\" = 12:34:6751 ] && "
                        "mkdir d && chmod 1777 d && mknod c c 1 3 && mkfifo p && ln -s f l && "
                        "[ \"$(stat -c %u:%g hosts)\" = 65534:65534 ]")
            assert guest.run("chown 1000 /tree/f")[0] != 0  # nobody on the host
            p9_work.overlay(guest, "/tree")
            for prefix in "", "qemu-":
                failing(guest, disks, prefix)
            unbound(guest)
        for id in viodev.sockets:
            assert status(viodev, id)["driver-errors"] == 0, status(viodev, id)
    owner = {path.name: (path.lstat().st_uid, path.lstat().st_gid) for path in pathlib.Path(t.tmp).iterdir()}
    assert owner.pop("f") == (100012, 200034) and owner.pop("hosts") == (0, 0), owner
    assert set(owner.values()) == {(100000, 200000)}, owner
    assert (t.tmp / "f").stat().st_mode & 0o7777 == 0o6751 and (t.tmp / "d").stat().st_mode & 0o7777 == 0o1777
    assert (t.tmp / "c").is_char_device() and (t.tmp / "c").stat().st_rdev == os.makedev(1, 3) and (t.tmp / "p").is_fifo()


@contextlib.contextmanager
def failing_disks(directory):
    """Directories of the host: `small` is soon full, what `broken` has taken cannot always be written to its disk."""
    small, store, broken = (directory / name for name in ("small", "store", "broken"))
    mounted = []

    def mount(what, where, *options):
        where.mkdir()
        subprocess.run(["mount", *options, what, where], check=True)
        mounted.append(where)

    try:
        mount("tmpfs", small, "-t", "tmpfs", "-o", "size=1m")
        mount("tmpfs", store, "-t", "tmpfs", "-o", "size=3m")
        with open(store / "disk", "wb") as file:
            file.truncate(32 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-E", "nodiscard", store / "disk"], check=True)
        mount(store / "disk", broken, "-o", "loop")
        for path in small, broken:
            (path / "d").mkdir()
            (path / "d/old").write_text("old\n")
        yield {"small": small / "d", "broken": broken / "d"}
    finally:
        for where in reversed(mounted):
            wait_for("the file system to be let go of",
                     lambda: subprocess.run(["umount", where], capture_output=True, check=False).returncode == 0)


def failing(guest, disks, prefix):
    """A host file system is full, read-only or broken: the guest's programs hear of it, and work when it is over."""
    for name in disks:
        p9_work.mount(guest, prefix + name, f"/{name}")

    def fails(command, *errors):
        result, out = guest.run(command)
        assert result != 0 and any(error in out for error in errors), f"{prefix}: {command}: {result}: {out}"

    fails("dd if=/dev/zero of=/small/big bs=64k count=32", "No space left on device")
    guest.check("rm /small/big && echo x >/small/new && [ $(cat /small/new) = x ]")
    remount(disks["small"], "ro")
    fails("echo y >>/small/new", "Read-only file system")
    fails("mkdir /small/dir", "Read-only file system")
    guest.check("[ $(cat /small/new) = x ]")
    remount(disks["small"], "rw")
    guest.check("echo y >>/small/new && [ $(wc -l </small/new) = 2 ] && rm /small/new")
    fails("dd if=/dev/urandom of=/broken/big bs=1M count=8 conv=fsync", "No space left on device", "Input/output error",
          "Read-only file system")  # once its journal cannot be written either
    guest.check("cat /broken/old")
    guest.check("(while [ ! -e /tmp/moved ]; do echo x >/small/x && cat /small/x && rm /small/x || touch /tmp/failed; done; "
                "touch /tmp/ended) </dev/null >/dev/null 2>&1 &")
    moved = disks["small"].with_name("moved")
    for _ in range(20):
        disks["small"].rename(moved)
        moved.rename(disks["small"])
    guest.check("touch /tmp/moved; while [ ! -e /tmp/ended ]; do sleep 0.1; done; rm /tmp/moved /tmp/ended; "
                "[ ! -e /tmp/failed ] && umount /small /broken")


def remount(path, how):
    """The host's whole file system, not this mount of it."""
    subprocess.run(["mount", "-o", f"remount,{how}", path.parent], check=True)


def unbound(guest):
    """Linux waits with the removal until nothing is mounted; meanwhile all works, and so does the driver bound again."""
    guest.check("cd /sys/bus/virtio/drivers/9pnet_virtio && set -- virtio* && echo $# >/tmp/nr && "
                "(for d; do echo $d >unbind; done; touch /tmp/unbound) </dev/null >/dev/null 2>&1 &")
    guest.check("cd / && sleep 1 && [ ! -e /tmp/unbound ] && echo x >/tree/while && rm /tree/while && umount /tree && "
                "while [ ! -e /tmp/unbound ]; do sleep 0.1; done")
    guest.check("cd /sys/bus/virtio/devices && for d in virtio*; do "
                "[ $(cat $d/device) = 0x0009 ] && echo $d >/sys/bus/virtio/drivers/9pnet_virtio/bind; done; cd /")
    p9_work.mount(guest, "tree", "/tree")
    guest.check("[ $(cat /tree/hosts) = x ] && umount /tree")


NR_FILES = 4000  # more than the device process may have descriptors


def test_everyday(t):
    """Locks that the host shares, slow calls, package managers, file capabilities, an overlay, many files."""
    tree, mapped = t.tmp / "tree", t.tmp / "mapped"
    for directory in tree, mapped, tree / "files":
        directory.mkdir()
    for i in range(NR_FILES):
        (tree / f"files/{i}").write_text(f"{i}\n")
    works = packages(tree / "root")
    (tree / "root/lock").touch()
    with t.serve(f"9p,id=tree,path={tree},tag=tree", f"9p,id=ro,path={tree},tag=ro,ro=on",
                 f"9p,id=attrs,path={mapped},tag=attrs,security=mapped-xattr") as viodev, \
            t.guest(attach(viodev), cpus=2, memory="1G", modules=p9_work.MODULES) as guest:
        p9_work.mount(guest, "tree", "/tree", "loose")
        p9_work.mount(guest, "ro", "/ro")
        p9_work.mount(guest, "attrs", "/attrs")
        guest.check("cp /usr/bin/busybox /tree/root/usr/bin/ && mount -t devtmpfs dev /tree/root/dev")
        locks(guest, viodev, tree / "root/lock")
        slow(guest, viodev, tree / "root/leased")
        for work in works:
            guest.check(work.replace("DIRECTORY", "/tree"), 2 * PATIENCE)
        capabilities(guest, ["/attrs"] + (["/tree"] if os.geteuid() == 0 else []))
        p9_work.overlay(guest, "/attrs")
        remembered(guest, viodev, tree)
        guest.check("umount /tree/root/dev /tree /ro /attrs")
        assert status(viodev, "tree")["fids"] == 0
        for id in viodev.sockets:
            assert status(viodev, id)["driver-errors"] == 0, status(viodev, id)


def packages(root):
    """Those package managers that this machine has, in a root of their own; their work."""
    p9_packages.make_root(root, "busybox")
    for name in "flock", "setpriv":
        p9_packages.copy_program(name, root)
    if shutil.which("setcap", path="/usr/sbin:/sbin"):
        p9_packages.copy_program("setcap", root)
    return list(filter(None, (p9_packages.dpkg(root), p9_packages.rpm(root))))


def is_free(path, operation=fcntl.LOCK_EX):
    """Whether a program of the host can have the lock, of flock() and of fcntl()."""
    results = []
    for lock in fcntl.flock, fcntl.lockf:
        with open(path, "r+b") as file:
            try:
                lock(file, operation | fcntl.LOCK_NB)
                results.append(True)
            except OSError:
                results.append(False)
    assert len(set(results)) == 1, results
    return results[0]


def locks(guest, viodev, path):
    """flock(1) in a script, by a file that only reads, and waiting for the host."""
    guest.check("printf '#!/bin/sh\\nexec chroot /tree/root /usr/bin/flock \"$@\"\\n' >/usr/bin/flock && chmod 755 /usr/bin/flock")
    guest.check("(exec 9>>/tree/root/lock; flock 9; touch /tmp/locked; while [ ! -e /tmp/go ]; do sleep 0.1; done; flock -u 9; "
                "touch /tmp/unlocked; while [ ! -e /tmp/end ]; do sleep 0.1; done) </dev/null >/dev/null 2>&1 &")
    guest.check("while [ ! -e /tmp/locked ]; do sleep 0.1; done")
    assert not is_free(path)
    guest.check("touch /tmp/go; while [ ! -e /tmp/unlocked ]; do sleep 0.1; done")
    assert is_free(path)
    for file in "/tree/root/lock", "/ro/root/lock":
        guest.check(f"exec 8<{file}; flock -x -n 8")
        guest.check(f"(exec 8<{file}; flock -x 8; touch /tmp/reads; while [ -e /tmp/reads ]; do sleep 0.1; done) "
                    "</dev/null >/dev/null 2>&1 & while [ ! -e /tmp/reads ]; do sleep 0.1; done")
        with open(path, "rb") as host:
            try:
                fcntl.flock(host, fcntl.LOCK_SH | fcntl.LOCK_NB)
                raise AssertionError(f"{file} is not locked")
            except BlockingIOError:
                pass
        guest.check("rm /tmp/reads; touch /tmp/end; wait; flock -x /lock sh -c :")
    with open(path, "r+b") as host:
        fcntl.flock(host, fcntl.LOCK_EX)
        guest.check("(flock /lock sh -c :; touch /tmp/had) </dev/null >/dev/null 2>&1 &")
        end = time.monotonic() + PATIENCE
        while status(viodev, "tree")["waiting-for-locks"] == 0:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert guest.run("[ -e /tmp/had ]")[0] != 0
    before = time.monotonic()
    guest.check("while [ ! -e /tmp/had ]; do sleep 0.1; done")
    assert time.monotonic() - before < 20, "Linux asks again after 30 s"


NR_THREADS = 1 + 2 * 8  # of a device process: its loop's, and those that wait
NR_SLOW = 20


def slow(guest, viodev, path):
    """More calls hang than there are threads: files that a program of the host has leased are opened. Others are served."""
    proc = pathlib.Path(f"/proc/{status(viodev, 'tree')['pid']}/task")
    path.write_text("leased\n")
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    with open(path, "r+b") as file:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        guest.check(f"for i in $(seq {NR_SLOW}); do cat /tree/root/leased >/tmp/leased.$i </dev/null 2>&1 & done")
        end = time.monotonic() + PATIENCE
        while len(os.listdir(proc)) < NR_THREADS - 8 + NR_SLOW:
            assert time.monotonic() < end, os.listdir(proc)
            time.sleep(0.1)
        guest.check("df /tree >/dev/null && echo x >/tree/root/other && [ $(cat /tree/root/other) = x ]")
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    guest.check(f"while [ $(cat /tmp/leased.* | grep -c leased) != {NR_SLOW} ]; do sleep 0.1; done")


def capabilities(guest, directories):
    """A program may what its file says, for an ordinary user; a shared setcap sets it, where this machine has one."""
    if guest.run("[ -e /tree/root/usr/bin/setcap ]")[0] != 0:
        return
    as_user = "chroot /tree/root /usr/bin/setpriv --reuid=1000 --regid=1000 --clear-groups /c/busybox chown 1000 /dev/owned"
    for directory in directories:
        guest.check(f"mkdir -p {directory}/c /tree/root/c && chmod 755 {directory} {directory}/c && "
                    f"cp /usr/bin/busybox {directory}/c/ && chmod 755 {directory}/c/busybox && "
                    f"mount --bind {directory}/c /tree/root/c && touch /tree/root/dev/owned")
        assert guest.run(as_user)[0] != 0
        guest.check(f"chroot /tree/root /usr/bin/setcap cap_chown+ep /c/busybox && {as_user} && "
                    "[ $(stat -c %u /tree/root/dev/owned) = 1000 ] && chown 0 /tree/root/dev/owned && "
                    "chroot /tree/root /usr/bin/setcap -r /c/busybox")
        assert guest.run(as_user)[0] != 0
        guest.check("umount /tree/root/c")


def remembered(guest, viodev, tree):
    """A guest that remembers more files than the device has descriptors reads, renames, removes and writes them."""
    guest.check(f"cd /tree/files && [ $(ls | xargs cat | sort -n | tail -n 1) = {NR_FILES - 1} ]", 2 * PATIENCE)
    now = status(viodev, "tree")
    assert now["nodes"] > NR_FILES > now["descriptors"], now
    guest.check("cd /tree && exec 3<files/5 && rm files/5 && mv files moved && [ $(cat <&3) = 5 ] && "
                "mv moved/6 moved/7 && [ $(cat moved/7) = 6 ] && echo x >>moved/8 && [ $(cat moved/8 | wc -l) = 2 ]")
    assert len(os.listdir(tree / "moved")) == NR_FILES - 2 and (tree / "moved/7").read_text() == "6\n"
