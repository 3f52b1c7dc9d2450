# SPDX-License-Identifier: BSD-2-Clause
"""Disks, as Linux's drivers and Debian's programs use them."""

import hashlib
import json
import os
import time

import pytest

from checks import MODES, allocated, attach, digest, fio, fio_command, image, load, rngtest, status, until, wait_for
from vm import GuestError

MIB = 1 << 20
FIXED = bytes(range(1, 129)) * 4  # what is on the disk that may only be read


def everything(t, mode, machine):
    """Every feature of a disk and an entropy source, in one boot."""
    disk, second, through, fixed = (t.tmp / f"{name}.raw" for name in ("disk", "second", "through", "fixed"))
    image(disk, 64)
    image(second, 32)
    image(through, 8)
    image(fixed, 2, FIXED)
    with t.serve(f"block,id=disk,path={disk},serial=viodev-{mode[:5]}-0815,queues=2,mode={mode}",
                 f"block,id=second,path={second},queues=2,mode={mode}",
                 f"block,id=through,path={through},cache=writethrough,block-size=4096,mode={mode}",
                 f"block,id=fixed,path={fixed},ro=on,mode={mode}",
                 f"rng,id=rng,mode={mode}") as viodev:
        with t.guest(attach(viodev), machine=machine, tools=True, cpus=2) as guest:
            t.say(f"commands after {guest.boot_seconds:.1f} s")
            for check in (identity, read_only, write_cache, verified, file_system, discard, entropy, resize, rebind):
                start = time.monotonic()
                check(t, guest, viodev, mode)
                t.say(f"{check.__name__}: {time.monotonic() - start:.1f} s")
        for id in viodev.sockets:
            assert status(viodev, id)["driver-errors"] == 0, f"{id}: {status(viodev, id)}"
    assert fixed.read_bytes() == FIXED * (2 * MIB // len(FIXED)), "the read-only image was changed"


def identity(t, guest, viodev, mode):
    """Ids and revision as the mode has them (4.1.2); the driver speaks the interface that it should; MSI-X."""
    modern = mode == "modern"
    ids = guest.check("cat /sys/bus/pci/drivers/virtio-pci/*/device || (dmesg | tail -n 40; exit 1)").split()
    assert ids == ["0x1042" if modern else "0x1001"] * 4 + ["0x1044" if modern else "0x1005"], ids
    for features in guest.check("cat /sys/bus/virtio/devices/*/features").split():
        assert features[32] == ("0" if mode == "legacy" else "1"), features  # VERSION_1
        assert features[28] == features[29] == "1", features  # INDIRECT_DESC, EVENT_IDX
    for id in viodev.sockets:
        told = status(viodev, id)
        assert told["driver"] == ("legacy" if mode == "legacy" else "modern") and told["mode"] == mode, told
    assert guest.check("cat /sys/block/vda/serial").strip() == f"viodev-{mode[:5]}-0815"
    assert guest.check("ls /sys/block/vda/mq /sys/block/vdb/mq").split().count("1") == 2, "two queues each"
    # -req.1 is a vector of a second queue.
    assert "virtio0-req.1" in guest.check("cat /proc/interrupts")


def read_only(t, guest, viodev, mode):
    """BLK-07: the guest sees a read-only disk, and none of its attempts changes the image."""
    assert guest.check("cat /sys/block/vdd/ro") == "1\n"
    assert guest.run("blockdev --setrw /dev/vdd; echo x | dd of=/dev/vdd conv=fsync 2>/dev/null")[0] != 0
    assert digest(guest, "/dev/vdd", 2) == hashlib.md5(FIXED * (2 * MIB // len(FIXED))).hexdigest()


def write_cache(t, guest, viodev, mode):
    """BLK-05, BLK-13: the guest turns the write cache off and on again; cache=writethrough leaves it no choice."""
    place = "/sys/block/vda/cache_type"
    assert guest.check(f"cat {place}") == "write back\n" and status(viodev, "disk")["write-cache"]
    guest.check(f"echo write through >{place}; dd if=/dev/zero of=/dev/vda bs=4k count=8 oflag=direct")
    assert guest.check(f"cat {place}") == "write through\n" and not status(viodev, "disk")["write-cache"]
    guest.check(f"echo write back >{place}")
    assert guest.check(f"cat {place}") == "write back\n" and status(viodev, "disk")["write-cache"]

    assert guest.check("cat /sys/block/vdc/cache_type") == "write through\n"
    assert guest.check("cat /sys/block/vdc/queue/logical_block_size") == "4096\n"
    guest.check("dd if=/dev/zero of=/dev/vdc bs=4k count=8 oflag=direct")
    assert not status(viodev, "through")["write-cache"]


def verified(t, guest, viodev, mode):
    """fio on two disks at once, each with two queues; every block is read back and compared."""
    both = "--numjobs=2 --offset_increment=16M --cpus_allowed=0-1 --cpus_allowed_policy=split"
    one = fio_command("one", "/dev/vda", size="6M", more=both)
    two = fio_command("two", "/dev/vdb", size="4M", bs="512-64k", depth=32, more=both)
    guest.check(f"({one}) & first=$!; {two} && wait $first")
    fio(guest, "three", "/dev/vdc", size="4M", bs="4k")
    for id in "disk", "second":
        queues = status(viodev, id)["queues"]
        assert len(queues) == 2 and all(queue["chains"] for queue in queues), f"{id}: a queue was not used: {queues}"


def file_system(t, guest, viodev, mode):
    """mkfs, files, remount, fsck."""
    guest.check("mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt && mkdir /mnt/d && "
                "dd if=/dev/urandom of=/mnt/d/file bs=64k count=64 2>/dev/null && cp /usr/bin/busybox /mnt/d && "
                "(cd /mnt && sha256sum d/* >sums) && rm -f /mnt/d/none && fstrim /mnt && umount /mnt && "
                "e2fsck -fn /dev/vda && echo 3 >/proc/sys/vm/drop_caches && "
                "mount -t ext4 -o ro /dev/vda /mnt && (cd /mnt && sha256sum -c sums) && umount /mnt")


def discard(t, guest, viodev, mode):
    """BLK-10: space is given back to the host, and reads as zero; so do zeroes that were written."""
    path = t.tmp / "second.raw"
    size = 8 * MIB
    fill = f"fio --name=fill --filename=/dev/vdb --rw=write --bs=1M --size={size} --buffer_pattern=0x78 --direct=1"
    zeroes = hashlib.md5(bytes(size)).hexdigest()
    guest.check(fill)
    full = allocated(path)
    # By their paths, or the shell would take busybox's, which know less.
    guest.check(f"/usr/sbin/blkdiscard -l {size} /dev/vdb")
    assert digest(guest, "/dev/vdb", 8) == zeroes
    assert allocated(path) <= full - size, f"{full} bytes of the image, now {allocated(path)}"
    guest.check(fill)
    guest.check(f"/usr/sbin/blkdiscard -z -l {size // 2} /dev/vdb && "
                f"/usr/bin/fallocate -z -o {size // 2} -l {size // 2} /dev/vdb")
    assert digest(guest, "/dev/vdb", 8) == zeroes
    told = status(viodev, "second")
    assert told["discard"]["requests"] and told["write-zeroes"]["requests"], told


def entropy(t, guest, viodev, mode):
    rngtest(guest)


def resize(t, guest, viodev, mode):
    """BLK-06: a configuration interrupt tells of `viodev ctl resize` and of a file that others lengthen or cut."""
    def sectors_are(mib):
        guest.check(until(f"[ $(cat /sys/block/vdb/size) -eq {mib * 2048} ]"))

    count = "awk '/virtio1-config/ { print $2 + $3 }' /proc/interrupts"
    before = int(guest.check(count))
    viodev.ctl("second", "resize", "48M")
    sectors_are(48)
    assert os.path.getsize(t.tmp / "second.raw") == 48 * MIB
    fio(guest, "grown", "/dev/vdb", size="4M", more=f"--offset={43 * MIB}")
    os.truncate(t.tmp / "second.raw", 40 * MIB)
    sectors_are(40)
    os.truncate(t.tmp / "second.raw", 56 * MIB)
    sectors_are(56)
    assert int(guest.check(count)) >= before + 3
    assert guest.run(f"dd if=/dev/vdb bs=1M skip=56 count=1 iflag=direct | cmp -n 1 - /dev/zero")[0] != 0


def rebind(t, guest, viodev, mode):
    """Unbinding and binding the drivers, virtio's and PCI's, under load; nothing is lost."""
    guest.check("dd if=/dev/urandom of=/dev/vdc bs=64k count=64 oflag=direct 2>/dev/null; md5sum /dev/vdc >/tmp/sum")
    virtio, pci = "bus/virtio/drivers/virtio_blk", "bus/pci/drivers/virtio-pci"
    guest.check(f"""
        set -e
        pci=$(basename $(readlink -f /sys/bus/virtio/devices/virtio0/..))
        cycle() {{ # driver, device, disk
            reads() {{ awk '{{ print $1 }}' /sys/block/vd$1/stat; }}
            enough=$(($(reads $3) + 50))
            {load("/dev/vd$3", rw="randrw")} & load=$!
            {until("[ $(reads $3) -ge $enough ]")}
            echo $2 >/sys/$1/unbind
            ! wait $load
            echo $2 >/sys/$1/bind
            {until("[ -b /dev/vd$3 ]")}
            dd if=/dev/vd$3 of=/dev/null bs=1M count=1 2>/dev/null
        }}
        cycle {virtio} virtio1 b
        cycle {pci} $pci a
        cycle {virtio} virtio1 b
        dd if=/dev/hwrng of=/dev/null bs=1k count=100000 2>/dev/null & load=$!
        sleep 0.3
        echo virtio4 >/sys/bus/virtio/drivers/virtio_rng/unbind
        wait $load || true
        echo virtio4 >/sys/bus/virtio/drivers/virtio_rng/bind
        dd if=/dev/hwrng of=/dev/null bs=1k count=1
        md5sum -c /tmp/sum
    """)
    fio(guest, "after", "/dev/vda", size="4M")
    fio(guest, "after", "/dev/vdb", size="4M")


def test_legacy(t):
    """A legacy disk on i440fx: fio, mkfs, discard, serial, read-only, cache, resize, rebind under load; rngtest."""
    everything(t, "legacy", "pc")


def test_transitional(t):
    """The same of a transitional one, on q35; Linux drives it as a modern one."""
    everything(t, "transitional", "q35")


def test_modern(t):
    """The same of a modern one, on q35."""
    everything(t, "modern", "q35")


def test_no_msix(t):
    """ISR-06: with INTx alone (msix=off), on i440fx."""
    disks = {mode: image(t.tmp / f"{mode}.raw", 16) for mode in MODES}
    with t.serve(*[f"block,id={mode},path={path},msix=off,mode={mode}" for mode, path in disks.items()],
                 "rng,id=rng,msix=off") as viodev:
        with t.guest(attach(viodev), machine="pc", tools=True) as guest:
            only_intx(guest, 4)
            for disk in "vda", "vdb", "vdc":
                fio(guest, disk, f"/dev/{disk}", size="4M")
            rngtest(guest, 5)


def test_no_msi(t):
    """ISR-06: the same on q35, with devices that have MSI-X and a kernel that must not use it (pci=nomsi)."""
    disks = {mode: image(t.tmp / f"{mode}.raw", 16) for mode in MODES}
    with t.serve(*[f"block,id={mode},path={path},queues=2,mode={mode}" for mode, path in disks.items()],
                 "rng,id=rng") as viodev:
        with t.guest(attach(viodev), append="pci=nomsi", tools=True, cpus=2) as guest:
            only_intx(guest, 4)
            for disk in "vda", "vdb", "vdc":
                fio(guest, disk, f"/dev/{disk}", size="4M")
            rngtest(guest, 5)
            viodev.ctl("modern", "resize", "20M")
            guest.check(until("[ $(cat /sys/block/vdc/size) -eq 40960 ]"))


def only_intx(guest, count):
    lines = [line for line in guest.check("cat /proc/interrupts").splitlines() if "virtio" in line]
    assert all("IO-APIC" in line for line in lines), lines
    assert sum(line.count("virtio") for line in lines) == count, lines


def test_limits(t):
    """iops= and bps=: reads and writes together come near to a limit that a busy machine reaches as well, and not above;
    and an image that ends inside a sector, on which the guest then writes a qcow2 header."""
    *disks, odd = [image(t.tmp / f"{name}.raw", 16) for name in ("iops", "bps", "odd")]
    with open(odd, "r+b") as file:
        file.seek(16 * MIB - 512)
        file.write(b"e" * 307)
        file.truncate()
    with t.serve(f"block,id=iops,path={disks[0]},iops=20", f"block,id=bps,path={disks[1]},bps=320K",
                 f"block,id=odd,path={odd}") as viodev:
        assert "complete the last block" in viodev.messages
        with t.guest(attach(viodev), tools=True) as guest:
            odd_size(guest, "/dev/vdc", odd)
            wait_for("rates near the limits", lambda: near_limits(t, guest))
            guest.check("printf 'QFI\\373\\0\\0\\0\\3' | dd of=/dev/vdc conv=notrunc,fsync 2>/dev/null")
    with pytest.raises(GuestError, match="looks like a qcow2 image"), t.serve(f"block,path={odd}"):
        pass
    with t.serve(f"block,path={odd},format=raw"):
        pass


def near_limits(t, guest):
    """What a busy machine does not reach now, it reaches later; above a limit it never is."""
    both = [fio_for_seconds("/dev/vda", "4k"), fio_for_seconds("/dev/vdb", "16k")]
    guest.check(f"{both[0]} >/tmp/iops & {both[1]} >/tmp/bps; wait")
    iops = measured(guest.check("cat /tmp/iops"), "iops")
    bps = measured(guest.check("cat /tmp/bps"), "bw_bytes")
    t.say(f"iops=20: {iops:.1f}; bps=320K: {bps / 1024:.0f}K")
    assert iops <= 22 and bps <= 352 * 1024, (iops, bps)
    return iops >= 10 and bps >= 160 * 1024


def odd_size(guest, disk, path):
    """The last bytes are there, zeroes behind them; the file grows when the guest writes to them."""
    assert guest.check(f"blockdev --getsize64 {disk}").strip() == str(16 * MIB)
    last = f"tail -c 512 {disk}"
    assert guest.check(f"{last} | tr -d '\\0'") == "e" * 307
    assert os.path.getsize(path) == 16 * MIB - 205
    guest.check(f"tr '\\0' w </dev/zero | dd of={disk} bs=512 count=1 seek={16 * MIB // 512 - 1} conv=notrunc,fsync 2>/dev/null")
    assert guest.check(f"echo 3 >/proc/sys/vm/drop_caches; {last}") == "w" * 512
    assert os.path.getsize(path) == 16 * MIB


def fio_for_seconds(disk, bs, seconds=4):
    return (f"fio --name=limit --filename={disk} --rw=randrw --bs={bs} --ioengine=libaio --direct=1 --iodepth=16 --size=16M "
            f"--time_based --ramp_time=1 --runtime={seconds} --allow_file_create=0 --output-format=json")


def measured(report, figure):
    job = json.loads(report)["jobs"][0]
    return job["read"][figure] + job["write"][figure]
