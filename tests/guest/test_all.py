# SPDX-License-Identifier: BSD-2-Clause
"""One guest with all seven devices, each at work at the same time as the others."""

import socket
import struct

from checks import Health, attach, fio, fio_command, image, opened, status, until, wait_for
from vm import PATIENCE

MOUNT = "mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 tree /tree"
EVENT = "<qqHHi"  # struct input_event
REPEAT = 2
KEYS = [("KEY_V", 47), ("KEY_I", 23), ("KEY_O", 24)]


def devices(t, mode, more=""):
    """The devices served. Input has no legacy interface, so its mode is always modern."""
    image(t.tmp / "disk.img", 32)
    image(t.tmp / "lun.img", 32)
    (t.tmp / "tree").mkdir()
    return [device + more for device in (
        f"block,id=disk,mode={mode},serial=all-block,path={t.tmp}/disk.img",
        f"net,id=net,mode={mode},backend=user,mac=52:54:00:12:34:56",
        f"console,id=con,mode={mode},port.org.example=unix:{t.tmp}/port",
        f"scsi,id=scsi,mode={mode},lun0={t.tmp}/lun.img,lun0.serial=all-scsi",
        f"rng,id=rng,mode={mode}",
        f"9p,id=tree,mode={mode},path={t.tmp}/tree,tag=tree",
        "input,id=keys,kind=keyboard,name=all-keyboard")]


def together(guest, viodev, t):
    """Disks, network, directory, entropy and a port are all busy in the same seconds."""
    jobs = {
        "disk": fio_command("disk", "/dev/vda", size="8M"),
        "scsi": fio_command("scsi", "/dev/sda", size="8M"),
        "net": "ping -c 100 -i 0.05 -W 60 10.0.2.2",
        "tree": "dd if=/dev/urandom of=/tree/file bs=64k count=128 && md5sum /tree/file >/tmp/sum && sync && "
                "echo 3 >/proc/sys/vm/drop_caches && md5sum -c /tmp/sum",
        "rng": "dd if=/dev/hwrng of=/dev/null bs=1k count=256 iflag=fullblock",
        "con": "(dd if=/dev/zero bs=64k count=64; echo done) >/dev/$(ls /sys/class/virtio-ports | head -n 1)",
    }
    with socket.socket(socket.AF_UNIX) as port:
        port.connect(str(t.tmp / "port"))
        port.settimeout(PATIENCE)
        guest.check("\n".join(f"(({job}) >/tmp/{name}.log 2>&1; echo $? >/tmp/{name}.status) </dev/null >/dev/null 2>&1 &"
                              for name, job in jobs.items()))
        got = b""
        while not got.endswith(b"done\n"):
            data = port.recv(1 << 20)
            assert data, f"the port closed after {len(got)} bytes"
            got += data
        assert len(got) == 64 * 65536 + 5
    for name in jobs:
        guest.check(until(f"[ -s /tmp/{name}.status ]", PATIENCE), PATIENCE)
        assert guest.check(f"cat /tmp/{name}.status") == "0\n", f"{name}: {guest.check(f'cat /tmp/{name}.log')}"


def keyboard(guest):
    """The path of its device, which is viodev's or QEMU's own."""
    return "/dev/input/" + guest.check("grep -l -e all-keyboard -e 'Virtio Keyboard' /sys/class/input/event*/device/name | "
                                       "cut -d/ -f5").strip()


def typed(guest, viodev):
    """Keys that `viodev ctl` presses arrive at the guest's input layer."""
    device = keyboard(guest)
    guest.check(f"(cat {device} >/tmp/events) </dev/null >/dev/null 2>&1 & " + opened(device))
    for name, _ in KEYS:
        viodev.ctl("keys", "inject", "key", name, "1")
        viodev.ctl("keys", "inject", "key", name, "0")
    wait_for("the keys", lambda: len(keys_in(guest, "/tmp/events")) >= 2 * len(KEYS), PATIENCE)
    guest.check("killall cat")
    assert keys_in(guest, "/tmp/events") == [(code, value) for _, code in KEYS for value in (1, 0)]


def keys_in(guest, path):
    """Keys that went down and up. One that is held repeats in the guest, which a slow host can cause."""
    data = bytes.fromhex(guest.check(f"od -An -v -tx1 {path} | tr -d ' \\n'"))
    size = struct.calcsize(EVENT)
    events = [struct.unpack_from(EVENT, data, at) for at in range(0, len(data) - size + 1, size)]
    return [(code, value) for _, _, type_, code, value in events if type_ == 1 and value != REPEAT]


def behind_iommu(guest, viodev):
    """Each device is in a group of the IOMMU's, and its driver hands out the IOMMU's addresses."""
    guest.check("dmesg | grep 'DMAR: IOMMU enabled'")
    for id in viodev.sockets:
        assert "ACCESS_PLATFORM" in status(viodev, id)["features"], status(viodev, id)
    types = guest.check("for d in /sys/bus/virtio/devices/*; do cat $(readlink -f $d)/../iommu_group/type; done").split()
    assert types == ["DMA"] * len(viodev.sockets), types
    # A request of many pages in one piece is one of many regions, more than a request has pieces elsewhere.
    guest.check("echo 8 >/proc/sys/vm/nr_hugepages")
    for disk in "vda", "sda":
        guest.check(f"cd /sys/block/{disk}/queue && n=$(cat max_hw_sectors_kb) && echo $((n < 2048 ? n : 2048)) >max_sectors_kb && "
                    "[ $(cat max_sectors_kb) -gt 1200 ]")
        fio(guest, disk, f"/dev/{disk}", rw="write", bs="2M", depth=2, size="8M", more="--mem=mmaphuge --hugepage-size=2M")


def all_seven(t, mode, *more, iommu=False, packed=False):
    append = "intel_iommu=on iommu=strict" if iommu else ""
    with t.serve(*devices(t, mode, ",packed=on" if packed else "")) as viodev:
        with t.guest(more, attach(viodev), machine="pc" if mode == "legacy" else "q35", tools=True, cpus=2,
                     memory="768M", append=append) as guest:
            health = [Health(viodev, id) for id in viodev.sockets]
            guest.check("ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2 && "
                        f"mkdir /tree && modprobe 9pnet_virtio && {MOUNT}")
            guest.check(until("[ -b /dev/sda ]"))
            drivers = guest.check("for d in /sys/bus/virtio/devices/*; do basename $(readlink $d/driver); done").split()
            assert sorted(drivers) == ["9pnet_virtio", "virtio_blk", "virtio_console", "virtio_input", "virtio_net",
                                       "virtio_rng", "virtio_scsi"], drivers
            if mode == "modern":
                for id in viodev.sockets:
                    assert {"NOTIFICATION_DATA", "RING_RESET"} <= set(status(viodev, id)["features"]), status(viodev, id)
            if iommu:
                behind_iommu(guest, viodev)
            for id in viodev.sockets if packed else ():
                assert "RING_PACKED" in status(viodev, id)["features"], status(viodev, id)
            together(guest, viodev, t)
            typed(guest, viodev)
            for one in health:
                one.check()
        for id in viodev.sockets:
            told = status(viodev, id)
            assert told["driver-errors"] == 0, told


def test_legacy(t):
    """All seven devices at once, legacy (input: modern)."""
    all_seven(t, "legacy")


def test_transitional(t):
    """All seven devices at once, transitional."""
    all_seven(t, "transitional")


def test_modern(t):
    """All seven devices at once, modern."""
    all_seven(t, "modern")


def test_iommu(t):
    """All seven devices at once behind an IOMMU that translates each buffer and forgets it at once."""
    all_seven(t, "modern", "-device", "intel-iommu,caching-mode=on", iommu=True)


def test_packed(t):
    """All seven devices at once with packed rings, on each queue of theirs."""
    all_seven(t, "modern", packed=True)
