# SPDX-License-Identifier: BSD-2-Clause
"""The host's files under a running guest's disks: replaced, shrunk, deleted; their file system fails."""

import fcntl
import os
import struct
import subprocess
import time

import pytest

from checks import attach, fio, fio_command, image, load, status, until, wait_for
from test_all import MOUNT
from test_lifecycle import file_system
from vm import GuestError

MIB = 1 << 20
EXT4_IOC_SHUTDOWN = 0x8004587D  # Linux, fs/ext4/ext4.h
WITHOUT_FLUSH = 2


def block(serial):
    """A virtio-blk disk, in a command of the guest's: its name depends on who is probed first."""
    return f"/dev/$(grep -lx {serial} /sys/block/vd*/serial | cut -d/ -f4)"


def lun(number):
    return f"/dev/$(ls /sys/class/scsi_device/*:0:0:{number}/device/block)"


def size_of(disk, mib):
    return until(f"[ $(blockdev --getsize64 {disk}) = {mib * MIB} ]")


def found(guest):
    guest.check(until(f"[ -b {block('own')} ] && [ -b {block('failing')} ] && [ -b {block('qemu')} ] && "
                      f"[ -b {lun(0)} ] && [ -b {lun(1)} ]"))


def verified_through(guest, disk, event):
    """Verified writes continue through the event: no request fails, no byte is wrong."""
    command = fio_command("through", f"$(readlink -f {disk})", size="4M", more="--time_based --runtime=600")
    guest.check(f"rm -f /tmp/status; ({command} >/tmp/log 2>&1; echo $? >/tmp/status) </dev/null >/dev/null 2>&1 &")
    done = f"$(awk '{{ print $5 }}' /sys/block/$(basename {disk})/stat)"
    guest.check(f"before={done}; " + until(f"[ {done} -gt $((before + 20)) ]"))
    event()
    guest.check(f"before={done}; " + until(f"[ {done} -gt $((before + 20)) ]"))
    guest.check("killall -INT fio; true")
    guest.check(until("[ -s /tmp/status ]"))
    log = guest.check("cat /tmp/log")
    assert "verify" not in log and "rror" not in log, log


def replaced(guest, viodev, t):
    """`mv` puts another file at the path: the guest keeps the old one, and nothing is written to the new one."""
    for disk, path, words in (block("own"), t.tmp / "own.img", ("own", "resize")), \
            (lun(1), t.tmp / "lun1.img", ("scsi", "resize", "lun1")):
        def moved():
            new = image(t.tmp / "new.img", 32)
            path.rename(f"{path}.old")
            new.rename(path)

        verified_through(guest, disk, moved)
        assert path.read_bytes() == bytes(32 * MIB)
        guest.check(size_of(disk, 16))
        with pytest.raises(GuestError, match="the image was replaced or removed"):
            viodev.ctl(*words, "64M")


def shrunk(guest, viodev, t):
    """By ctl under load: requests beyond the new size fail, the others succeed, and the file stays short."""
    for disk, path, words in (block("second"), t.tmp / "second.img", ("second", "resize")), \
            (lun(2), t.tmp / "lun2.img", ("scsi", "resize", "lun2")):
        rescan = f"[ ! -e /sys/block/$(basename {disk})/device/rescan ] || echo 1 >/sys/block/$(basename {disk})/device/rescan; "
        guest.check(f"{load(disk, rw='randwrite')} & " + until(f"[ $(awk '{{ print $5 }}' /sys/block/$(basename {disk})/stat) -gt 100 ]"))
        viodev.ctl(words[0], words[1], "--shrink", *words[2:], "4M")
        guest.check(rescan + size_of(disk, 4))
        guest.check("killall fio; " + until("! pidof fio"))
        wait_for("the file to be short", lambda: path.stat().st_size == 4 * MIB)
        fio(guest, "short", f"$(readlink -f {disk})", size="4M")
        assert path.stat().st_size == 4 * MIB


def deleted(guest, viodev, t):
    """The files have no name any more; failed() still uses them."""
    (t.tmp / "lun1.img.old").unlink()
    verified_through(guest, block("own"), (t.tmp / "own.img.old").unlink)


def results(guest, command):
    """What a command makes of each disk on the file system that fails, and of QEMU's own."""
    return {name: guest.run(command.format(disk=disk))[1].splitlines()[-1]
            for name, disk in (("block", block("failing")), ("scsi", lun(0)), ("QEMU", block("qemu")))}


def shut_down(mount):
    directory = os.open(mount, os.O_RDONLY)
    try:
        fcntl.ioctl(directory, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
    finally:
        os.close(directory)


def failed(guest, viodev, t):
    """
    The file system detects an error and becomes read-only; then it shuts down. Requests end as those of QEMU's disk do,
    with or without errors; disks elsewhere carry on, also after a reset.
    """
    mount = t.tmp / "fs"
    read = "dd if={disk} of=/dev/null bs=64k count=4 iflag=direct 2>&1 && echo ok || echo failed"
    write = "dd if=/dev/zero of={disk} bs=64k count=4 oflag=direct conv=fsync 2>&1 && echo ok || echo failed"
    assert set(results(guest, read).values()) == set(results(guest, write).values()) == {"ok"}
    number = os.stat(mount).st_dev
    name = os.path.basename(os.readlink(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"))
    subprocess.run(["mount", "-o", "remount,errors=remount-ro", mount], check=True)
    with open(f"/sys/fs/ext4/{name}/trigger_fs_error", "w", encoding="ascii") as trigger:
        trigger.write("an error")
    assert set(results(guest, read).values()) == {"ok"}
    told = results(guest, write)
    assert len(set(told.values())) == 1, told
    shut_down(mount)
    assert set(results(guest, read).values()) == set(results(guest, write).values()) == {"failed"}
    code, said = guest.run("echo new >/tree/new")
    assert code, said
    fio(guest, "other", f"$(readlink -f {lun(1)})", size="1M")
    guest.reset()
    found(guest)
    for disk in block("own"), lun(1):
        fio(guest, "other", f"$(readlink -f {disk})", size="1M")


def measured(guest, viodev, t):
    """Disks without an image: requests beyond 4 GiB complete."""
    for disk in block("null"), lun(3):
        guest.check(size_of(disk, 1 << 20) + f" && dd if=/dev/zero of={disk} bs=1M count=64 seek=500000 oflag=direct conv=fsync 2>&1 || exit; "
                    f"dd if={disk} of=/dev/null bs=1M count=64 iflag=direct 2>&1")


@pytest.mark.timeout(900)
def test_host_files(t):
    """Files of disks are replaced, shrunk and deleted; then the file system of two others and of a tree fails."""
    own, second = (image(t.tmp / f"{name}.img", 16) for name in ("own", "second"))
    lun1, lun2 = (image(t.tmp / f"{name}.img", 16) for name in ("lun1", "lun2"))
    with file_system(t) as mount:
        for name in "block", "lun0", "qemu":
            image(mount / f"{name}.img", 8)
        (mount / "tree").mkdir()
        with t.serve(f"block,id=own,path={own},serial=own", f"block,id=second,path={second},serial=second",
                     f"block,id=failing,path={mount}/block.img,serial=failing,cache=direct",
                     f"scsi,id=scsi,lun0={mount}/lun0.img,lun0.cache=direct,lun1={lun1},lun2={lun2},lun3.backend=null,lun3.size=1T",
                     "block,id=null,backend=null,size=1T,serial=null",
                     f"9p,id=tree,path={mount}/tree,tag=tree") as viodev:
            pids = {id: status(viodev, id)["pid"] for id in viodev.sockets}
            drive = ["-drive", f"if=none,id=q,format=raw,cache=none,file={mount}/qemu.img", "-device", "virtio-blk-pci,drive=q,serial=qemu"]
            with t.guest(attach(viodev), *drive, tools=True) as guest:
                found(guest)
                guest.check(f"mkdir -p /tree && modprobe 9pnet_virtio && {MOUNT}")
                for event in replaced, shrunk, deleted, failed, measured:
                    start = time.monotonic()
                    event(guest, viodev, t)
                    t.say(f"{event.__name__}: {time.monotonic() - start:.1f} s")
            assert {id: status(viodev, id)["pid"] for id in viodev.sockets} == pids, viodev.messages
