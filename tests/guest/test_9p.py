# SPDX-License-Identifier: BSD-2-Clause
"""Shared directories, as Linux mounts them."""

import os

from checks import attach, status

MOUNT = "mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576"


def shared(t, mode, machine):
    """What people do in a directory, in one boot; what the host then finds in it."""
    tree, fixed = t.tmp / "tree", t.tmp / "fixed"
    tree.mkdir()
    fixed.mkdir()
    (tree / "from-host").write_text("written by the host\n")
    (fixed / "file").write_text("fixed\n")
    outside = t.tmp / "outside"
    outside.write_text("secret\n")
    os.symlink(outside, fixed / "way-out")
    os.mkfifo(fixed / "fifo")
    with t.serve(f"9p,id=tree,path={tree},tag=tree,security=mapped-xattr,mode={mode}",
                 f"9p,id=fixed,path={fixed},ro=on,mode={mode}") as viodev:
        with t.guest(attach(viodev), machine=machine, tools=True, cpus=2, modules=["9p", "9pnet_virtio"]) as guest:
            guest.check(f"mkdir /tree /fixed && {MOUNT} tree /tree && {MOUNT} viodev /fixed")
            for check in (files, verified, names, owners, many, read_only):
                check(guest)
        for id in viodev.sockets:
            assert status(viodev, id)["driver-errors"] == 0, status(viodev, id)
    assert (tree / "copy").read_text() == "written by the host\n"
    assert len(os.listdir(tree / "many")) == 500
    assert sorted(os.listdir(fixed)) == ["fifo", "file", "way-out"] and (fixed / "file").read_text() == "fixed\n"
    assert outside.read_text() == "secret\n"


def files(guest):
    """Files are read, written, appended to, cut, and still there when the name is gone."""
    guest.check("cd /tree && cp from-host copy && cmp from-host copy && dd if=/dev/urandom of=big bs=1M count=16 2>/dev/null && "
                "sync && md5sum big >sum && echo 3 >/proc/sys/vm/drop_caches && md5sum -c sum")
    guest.check("cd /tree && echo one >f && echo two >>f && [ $(wc -c <f) = 8 ] && truncate -s 3 f && [ $(cat f) = one ]")
    guest.check("cd /tree && exec 3<big && rm big && [ $(dd bs=1M count=1 <&3 2>/dev/null | wc -c) = 1048576 ]")


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
    """A big directory is listed whole, and listed again after a part of it is gone."""
    guest.check("cd /tree && mkdir many && cd many && for i in $(seq 1500); do : >file$i; done && [ $(ls | wc -l) = 1500 ] && "
                "rm file1* file2* file3* && [ $(ls | grep -c file) = 666 ] && rm -f * && "
                "for i in $(seq 500); do : >$i; done && [ $(ls | wc -l) = 500 ]", timeout=180)


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
