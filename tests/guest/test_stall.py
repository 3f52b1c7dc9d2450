# SPDX-License-Identifier: BSD-2-Clause
"""Disks that do not answer, or are full: slow for the guest, not broken."""

import os
import subprocess
import threading

import pytest
from checks import attach, fio, fio_command, image, status, until, wait_for
from test_lifecycle import file_system
from test_vhost_user import front_end

STALL = 15  # seconds, from the reset on
MIB = 1 << 20


def waiting(viodev, id):
    told = status(viodev, id)
    return told["waiting"] if id == "block" else told["luns"][0]["waiting"]


def in_flight(viodev, id):
    return sum(queue["inflight"] for queue in status(viodev, id)["queues"])


def freeze(how, mount):
    subprocess.run(["fsfreeze", how, mount], check=True)


@pytest.mark.timeout(600)
def test_frozen(t):
    """The images' file system is frozen for 15 s under direct writes: ctl, other disks, changes of guest memory and a
    pause meanwhile; system_reset; the same devices go on."""
    other = image(t.tmp / "other.raw", 8)
    with file_system(t) as mount:
        disks = [image(mount / f"{id}.raw", 16) for id in ("block", "scsi")]
        with t.serve(f"block,id=block,path={disks[0]},cache=direct",
                     f"scsi,id=scsi,lun0={disks[1]},lun0.cache=direct,lun1={image(t.tmp / 'lun1.raw', 8)}",
                     f"block,id=other,path={other}") as viodev:
            pids = {id: status(viodev, id)["pid"] for id in viodev.sockets}
            # A BAR of RAM, which vfio-user clients map, and which the guest turns on and off.
            ram = ["-object", "memory-backend-memfd,id=bar,size=1M,share=on", "-device", "ivshmem-plain,memdev=bar,addr=1e.0"]
            with t.guest(attach(viodev), *ram, tools=True) as guest:
                stall(t, guest, viodev, mount)
                for disk in "vda", "sda", "vdb":
                    fio(guest, disk, f"/dev/{disk}", size="4M")
                assert guest.check("cat /sys/block/vda/size").strip() == str(20 * MIB // 512)
            for id, pid in pids.items():
                told = status(viodev, id)
                assert told["pid"] == pid and told["driver-errors"] == 0, told


def stall(t, guest, viodev, mount):
    freeze("--freeze", mount)
    thaw = threading.Timer(STALL, freeze, ["--unfreeze", mount])
    try:
        guest.check("for disk in vda sda; do "
                    "dd if=/dev/zero of=/dev/$disk bs=64k count=64 oflag=direct >/dev/null 2>&1 & done")
        for id in "block", "scsi":
            wait_for(f"{id}: a write in flight", lambda: in_flight(viodev, id))
        # None of this waits for the disk, nor does the disk's device wait for any of it.
        guest.check("dd if=/dev/vdb of=/dev/null bs=1M iflag=direct 2>/dev/null")
        assert "pending" in viodev.ctl("block", "resize", "20M", "--json")
        # In the sandbox, a thread is added for what another one hangs in.
        assert "pending" in viodev.ctl("scsi", "resize", "lun0", "20M", "--json")
        wait_for("another LUN's size", lambda: "pending" not in viodev.ctl("scsi", "resize", "lun1", "12M", "--json"))
        command = "/sys/bus/pci/devices/0000:00:1e.0/config"
        for byte in "000", "002", "000":
            guest.check(f"printf '\\{byte}' | dd of={command} bs=1 seek=4 conv=notrunc 2>/dev/null")
        guest.qmp("stop")
        guest.qmp("cont")
        for id in "block", "scsi":
            assert in_flight(viodev, id), f"{id}: nothing has hung"
        thaw.start()
        guest.reset()
    finally:
        if thaw.ident:
            thaw.join()
        else:
            freeze("--unfreeze", mount)


def fill(mount, but=6 * MIB):
    """Creates a file that leaves so many bytes of the file system free."""
    filler = mount / "filler"
    with open(filler, "wb", buffering=0) as file:
        while (left := os.statvfs(mount)).f_bavail * left.f_frsize > but:
            file.write(bytes(MIB))
            os.fsync(file)
    return filler


@pytest.mark.timeout(600)
def test_full(t):
    """The images' file system is full: writes wait, without an error in the guest, until there is space and `resume`."""
    with file_system(t) as mount:
        disks = [image(mount / f"{id}.raw", 24) for id in ("block", "scsi")]
        with t.serve(f"block,id=block,path={disks[0]}", f"scsi,id=scsi,lun0={disks[1]}") as viodev:
            with t.guest(attach(viodev), tools=True) as guest:
                for id, disk in ("block", "/dev/vda"), ("scsi", "/dev/sda"):
                    full(guest, viodev, mount, id, disk)


def full(guest, viodev, mount, id, disk):
    filler = fill(mount)
    guest.check("rm -f /tmp/done")
    guest.check(f"({fio_command('full', disk, size='16M')}; echo $? >/tmp/done) >/tmp/fio 2>&1 &")
    wait_for(f"{id}: a write that waits", lambda: waiting(viodev, id))
    assert guest.run("[ -e /tmp/done ]")[0] != 0
    viodev.ctl(id, "resume")
    wait_for(f"{id}: it waits again", lambda: waiting(viodev, id))
    lines = [line for line in viodev.messages.splitlines() if "No space left on device" in line and id in line]
    assert len(lines) == 2, viodev.messages
    filler.unlink()
    viodev.ctl(id, "resume")
    guest.check(until("[ -e /tmp/done ]"))
    assert guest.check("cat /tmp/done") == "0\n", guest.check("cat /tmp/fio")
    assert not waiting(viodev, id) and status(viodev, id)["driver-errors"] == 0


@pytest.mark.timeout(600)
def test_full_paused(t):
    """A guest is paused while writes wait for space, without `resume`: they wait again when it runs, and are done."""
    with file_system(t) as mount:
        disks = [image(mount / f"{id}.raw", 24) for id in ("block", "scsi")]
        with t.serve(f"block,id=block,path={disks[0]}", f"scsi,id=scsi,lun0={disks[1]}",
                     options=("--transport=vhost-user",)) as viodev:
            devices = [*front_end(viodev, "block", "vhost-user-blk-pci"), *front_end(viodev, "scsi", "vhost-user-scsi-pci")]
            with t.guest(devices, tools=True) as guest:
                for id, disk in ("block", "/dev/vda"), ("scsi", "/dev/sda"):
                    full_paused(guest, viodev, mount, id, disk)


def full_paused(guest, viodev, mount, id, disk):
    filler = fill(mount)
    guest.check("rm -f /tmp/done")
    guest.check(f"({fio_command('full', disk, size='16M')}; echo $? >/tmp/done) >/tmp/fio 2>&1 &")
    for _ in range(2):
        wait_for(f"{id}: a write that waits", lambda: waiting(viodev, id))
        guest.qmp("stop")
        assert not waiting(viodev, id) and not in_flight(viodev, id)
        guest.qmp("cont")
    wait_for(f"{id}: it waits again", lambda: waiting(viodev, id))
    guest.qmp("stop")
    filler.unlink()
    guest.qmp("cont")
    guest.check(until("[ -e /tmp/done ]"))
    assert guest.check("cat /tmp/done") == "0\n", guest.check("cat /tmp/fio")
    assert not waiting(viodev, id) and status(viodev, id)["driver-errors"] == 0
