# SPDX-License-Identifier: BSD-2-Clause
"""SCSI disks and CD-ROMs, as Linux's drivers and sg3-utils use them."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import time

import pytest

import scsi_suites
from checks import attach, fio, image, status, until
from images import iso
from vm import GuestError

DATA = bytes(range(256)) * 8  # a CD-ROM's sector


def scsi(t, mode, machine):
    """Every kind of unit in one boot."""
    disk, second, cdrom = (t.tmp / f"{name}.img" for name in ("disk", "second", "cdrom"))
    image(disk, 32)
    image(second, 16)
    image(cdrom, 2, DATA)
    with t.serve(f"scsi,id=scsi,mode={mode},queues=2,lun0={disk},lun0.serial=scsi-{mode},lun3={second},lun3.ro=on,"
                 f"t2.lun0={cdrom},t2.lun0.type=cdrom,t3.lun0.type=cdrom") as viodev:
        with t.guest(attach(viodev), machine=machine, tools=True, cpus=2) as guest:
            for check in (units, verified, pages, provisioned, cd_rom, discs, empty_drive, resized, hot_plugged, brought, shared):
                check(guest, viodev, mode)
        assert status(viodev, "scsi")["driver-errors"] == 0, status(viodev, "scsi")
    assert second.read_bytes() == bytes(16 << 20), "the read-only image was changed"


def units(guest, viodev, mode):
    """Linux finds four units at the addresses that they were given; /dev/disk and /dev/ro are the disks."""
    guest.check(until("[ $(ls /sys/class/scsi_device | wc -l) = 4 ]"))
    for name, lun in ("disk", 0), ("ro", 3):  # Linux probes them side by side and names them as they come
        block = f"/sys/class/scsi_device/*:0:0:{lun}/device/block"
        guest.check(until(f"[ -b /dev/$(ls {block}) ]"))
        guest.check(f"ln -s $(ls {block}) /dev/{name}; ln -sf /sys/block/$(ls {block}) /tmp/{name}")
    found = guest.check("cd /sys/class/scsi_device && for d in *; do echo ${d#*:} $(cat $d/device/type); done").split("\n")
    assert sorted(found[:-1]) == ["0:0:0 0", "0:0:3 0", "0:2:0 5", "0:3:0 5"], found
    assert status(viodev, "scsi")["driver"] == ("legacy" if mode == "legacy" else "modern")
    assert guest.check("cat /tmp/ro/ro") == "1\n"


def verified(guest, viodev, mode):
    """fio reads back what it wrote; a file system is made, checked and keeps its files."""
    fio(guest, "verify", "/dev/disk", size="8M", bs="512-64k", depth=16)
    guest.check("mkfs.ext4 -q /dev/disk && mount -t ext4 /dev/disk /mnt && cp /usr/bin/fio /mnt/ && umount /mnt && "
                "fsck.ext4 -fn /dev/disk && mount -t ext4 /dev/disk /mnt && cmp /usr/bin/fio /mnt/fio && umount /mnt")
    assert guest.run("blockdev --setrw /dev/ro; echo x | dd of=/dev/ro conv=fsync 2>/dev/null")[0] != 0


def pages(guest, viodev, mode):
    """sg3-utils understand what the unit says of itself."""
    assert f"scsi-{mode}" in guest.check("sg_vpd --page=sn /dev/disk")
    for page in ("sv", "di", "bl", "bdc", "lbpv"):
        guest.check(f"sg_vpd --page={page} /dev/disk")
    guest.check("sg_inq /dev/disk; sg_readcap --16 /dev/disk; sg_modes --all /dev/disk; sg_opcodes /dev/disk; sg_luns /dev/disk")
    guest.check("sg_turs /dev/disk; sg_requests /dev/disk; sg_sync /dev/disk; sg_verify --lba=0 --count=64 /dev/disk")
    guest.check("sg_persist --out --register --param-sark=abc /dev/disk && sg_persist --in --read-keys /dev/disk | grep -q 0xabc "
                "&& sg_persist --out --clear --param-rk=abc /dev/disk")


def provisioned(guest, viodev, mode):
    """UNMAP and WRITE SAME: what is given back reads as zeroes."""
    guest.check("dd if=/dev/urandom of=/dev/disk bs=1M count=4 oflag=direct 2>/dev/null && /usr/sbin/blkdiscard -o 0 -l 2M /dev/disk && "
                "/usr/sbin/blkdiscard -z -o 2M -l 2M /dev/disk && dd if=/dev/disk bs=1M count=4 iflag=direct 2>/dev/null | cmp -n 4194304 "
                "- /dev/zero")


def cd_rom(guest, viodev, mode):
    """The CD-ROM drive has its disc and cannot be written."""
    guest.check(until("[ -b /dev/sr0 ]"))
    guest.check("dd if=/dev/sr0 bs=2048 count=3 2>/dev/null >/tmp/cd && [ $(wc -c </tmp/cd) = 6144 ]")
    assert guest.check("dd if=/dev/sr0 bs=2048 count=1 2>/dev/null | od -An -v -tu1 | tr -s ' \\n' ' '").split() == \
        [str(byte) for byte in DATA]


def discs(guest, viodev, mode):
    """Discs are changed and ejected while the guest runs; it sees each new one, and keeps what it has mounted."""
    one, two = (iso(os.path.join(viodev.dir, f"{name}.iso"), name, f"this is {name}\n".encode(), extra=307) for name in ("one", "two"))
    mounted = "mount -t iso9660 -o ro /dev/sr0 /mnt && cat /mnt/readme.txt"
    viodev.ctl("scsi", "medium", "t2.lun0", one)
    assert guest.check(mounted) == "this is one\n"
    assert os.path.getsize(one) == 22 * 2048 + 307 and guest.check("cat /sys/block/sr0/size") == "92\n"
    assert guest.check("tail -c 2048 /dev/sr0 | tr -d '\\0' | wc -c") == "307\n"
    for command in ("medium", "t2.lun0", two), ("eject", "t2.lun0"):
        with pytest.raises(GuestError, match="the guest uses the disc"):
            viodev.ctl("scsi", *command)
    guest.check("cat /mnt/readme.txt && umount /mnt")
    viodev.ctl("scsi", "medium", "t2.lun0", two)
    assert guest.check(mounted) == "this is two\n"
    guest.check("umount /mnt")
    viodev.ctl("scsi", "eject", "t2.lun0")
    assert [lun["tray"] for lun in status(viodev, "scsi")["luns"] if "tray" in lun] == ["open", "closed"]
    assert guest.run("dd if=/dev/sr0 of=/dev/null count=1 2>/dev/null")[0] != 0
    viodev.ctl("scsi", "medium", "t2.lun0", one)
    assert guest.check(mounted + " && umount /mnt") == "this is one\n"
    guest.check("eject /dev/sr0 || sg_start --eject /dev/sr0")
    viodev.ctl("scsi", "medium", "t2.lun0", two)
    assert guest.check(mounted + " && umount /mnt") == "this is two\n"


def empty_drive(guest, viodev, mode):
    """A drive that started without a disc gets a CD, then a DVD: READ CD, READ DISC STRUCTURE."""
    drive = "/dev/$(ls /sys/class/scsi_device/*:0:3:0/device/block)"
    code, said = guest.run(f"dd if={drive} of=/dev/null count=1 2>&1")
    assert code and "No medium found" in said, said
    disc = iso(os.path.join(viodev.dir, "three.iso"), "three", b"this is three\n")
    viodev.ctl("scsi", "medium", "t3.lun0", disc)
    assert guest.check(f"mount -t iso9660 -o ro {drive} /mnt && cat /mnt/readme.txt && umount /mnt") == "this is three\n"
    guest.check(f"""cd /tmp && sg_raw -r 4096 -o cd.out {drive} be 08 0 0 0 10 0 0 02 10 0 0 2>&1 &&
        dd if={drive} bs=2048 skip=16 count=2 of=dd.out 2>/dev/null && cmp cd.out dd.out""")
    viodev.ctl("scsi", "eject", "t3.lun0")
    dvd = os.path.join(viodev.dir, "dvd.iso")
    with open(dvd, "wb") as file:
        file.truncate(4 << 30)
    viodev.ctl("scsi", "medium", "t3.lun0", dvd)
    guest.check(until(f"dd if={drive} of=/dev/null count=1 2>/dev/null"))
    guest.check(f"cd /tmp && sg_raw -r 2052 -o dvd.out {drive} ad 0 0 0 0 0 0 0 08 04 0 0 2>&1")
    said = guest.check("od -An -v -tx1 -N16 /tmp/dvd.out").split()
    last = 0x30000 + (4 << 30) // 2048 - 1
    assert said == f"08 02 00 00 01 0f 01 00 00 03 00 00 00 {last.to_bytes(3, 'big').hex(' ')}".split(), said
    viodev.ctl("scsi", "eject", "t3.lun0")


def resized(guest, viodev, mode):
    """SCSI-EVT: a unit that grows tells the guest by the event queue."""
    viodev.ctl("scsi", "resize", "lun0", "48M")
    guest.check(until("[ $(cat /tmp/disk/size) = 98304 ]"))


def hot_plugged(guest, viodev, mode):
    """A unit goes and comes back while the guest runs."""
    viodev.ctl("scsi", "lun", "remove", "lun3")
    guest.check(until("[ ! -e /tmp/ro/ro ]"))
    viodev.ctl("scsi", "lun", "add", "lun3")
    guest.check(until("[ -e /sys/class/scsi_device/?:0:0:3 ]"))


def brought(guest, viodev, mode):
    """A file of which the command line said nothing becomes a disk, and is let go of when that is removed."""
    new = image(os.path.join(viodev.dir, "new.img"), 16)
    unit = "/sys/class/scsi_device/*:0:0:5"
    viodev.ctl("scsi", "lun", "add", f"lun5={new},lun5.serial=new")
    assert "lun5" in [lun["name"] for lun in status(viodev, "scsi")["luns"]]
    guest.check(until(f"[ -b /dev/$(ls {unit}/device/block) ]"))
    guest.check(f"disk=/dev/$(ls {unit}/device/block) && sg_vpd --page=sn $disk | grep -q new && mkfs.ext4 -q $disk && "
                "mount -t ext4 $disk /mnt && cp /usr/bin/fio /mnt/ && umount /mnt && fsck.ext4 -fn $disk && "
                "mount -t ext4 $disk /mnt && cmp /usr/bin/fio /mnt/fio && umount /mnt")
    with open(new, "r+b") as file:
        assert not can_lock(file)
        viodev.ctl("scsi", "lun", "remove", "lun5")
        guest.check(until(f"[ ! -e {unit} ]"))
        assert can_lock(file)
        assert file.read(2048)[1080:1082] == b"\x53\xef", "no ext4 in the file"


def shared(guest, viodev, mode):
    """Two units on one image: no reservation that would not bind the other, one identity; names and limits of a unit."""
    new = image(os.path.join(viodev.dir, "shared.img"), 1)
    units = {lun: f"/dev/$(ls /sys/class/scsi_device/*:0:0:{lun}/device/block)" for lun in (5, 6)}
    more = {5: "vendor=ACME,lun5.product=Big disk,lun5.wwn=0x5000c500a0b1c2d3", 6: "iops=50"}
    for lun, disk in units.items():
        viodev.ctl("scsi", "lun", "add", f"lun{lun}={new},lun{lun}.share=on,lun{lun}.{more[lun]}")
        guest.check(until(f"[ -b {disk} ]"))
        code, output = guest.run(f"sg_persist --out --register --param-sark=abc {disk} 2>&1")
        assert code == 9 and "nvalid op" in output, (code, output)
    serials = [guest.check(f"sg_vpd --page=sn {disk} | grep serial") for disk in units.values()]
    assert serials[0] == serials[1] and len(set(lun["serial"] for lun in status(viodev, "scsi")["luns"])) == 5, serials
    sysfs = "/sys/class/scsi_device/*:0:0:5/device"
    assert guest.check(f"cat {sysfs}/vendor {sysfs}/model {sysfs}/wwid").split() == ["ACME", "Big", "disk", "naa.5000c500a0b1c2d3"]
    start = time.monotonic()
    guest.check(f"dd if={units[6]} of=/dev/null bs=4k count=100 iflag=direct 2>/dev/null")
    assert time.monotonic() - start > 1.5
    for lun in units:
        viodev.ctl("scsi", "lun", "remove", f"lun{lun}")


def can_lock(file):
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


def test_legacy(t):
    """A legacy SCSI host on i440fx: disks and a CD-ROM, fio, mkfs, sg3-utils, UNMAP, resize, hot-plug, new files."""
    scsi(t, "legacy", "pc")


def test_transitional(t):
    """The same of a transitional one, on q35."""
    scsi(t, "transitional", "q35")


def test_modern(t):
    """The same of a modern one, on q35."""
    scsi(t, "modern", "q35")


def test_initiators(t):
    """iscsi-test-cu and sg3-utils: no test of theirs fails."""
    disk = image(t.tmp / "disk.img", scsi_suites.DISK_MIB)
    with t.serve(f"scsi,lun0={disk}") as viodev, t.guest(attach(viodev), tools=True) as guest:
        sg = scsi_suites.generic(guest, "VIODEV")
        for suite, least in (scsi_suites.iscsi_test, 120), (scsi_suites.sg3_utils, 80):
            outcomes, texts = suite(guest, sg)
            assert not scsi_suites.failures(outcomes), "\n".join(texts)
            passed = sum(list(tests.values()).count(scsi_suites.PASS) for tests in outcomes.values())
            assert passed >= least, outcomes


def with_libraries(programs, to):
    """Copies programs, and what they are linked with, for a guest that has other libraries."""
    lib = to / "lib"
    lib.mkdir(parents=True)
    for program in programs:
        shutil.copy(program, to)
        needs = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for path in re.findall(r"(/\S+) \(0x", needs):
            shutil.copy(path, lib)


def fnv1a(data):
    hash = 0xcbf29ce484222325
    for byte in data:
        hash = (hash ^ byte) * 0x100000001b3 % (1 << 64)
    return hash


def own_name(guest):
    """The default serial number of a block device is made of its WWID, whatever the device file is called."""
    guest.check(until("[ -b /dev/sda ]") + " && mknod /dev/other b $(tr : ' ' </sys/block/sda/dev)")
    guest.check("""
        export LD_LIBRARY_PATH=/tmp/lib
        /tmp/viodev serve --dir=/run/w block,id=a,path=/dev/sda,ro=on block,id=b,path=/dev/other,ro=on >/tmp/names 2>&1 &
    """)
    guest.check(until("grep -qx ready /tmp/names") + " || (cat /tmp/names; false)")
    wwid = guest.check("cat /sys/block/sda/device/wwid")
    for id in "a", "b":
        told = json.loads(guest.check(f"LD_LIBRARY_PATH=/tmp/lib /tmp/viodev ctl /run/w/{id}.ctl status --json"))["reply"]
        assert told["serial"] == f"{fnv1a(f'device/wwid {wwid} '.encode()):016x}", (wwid, told)


def test_passthrough(t):
    """passthrough: viodev in its sandbox, in a guest that has real SCSI devices: data, sense, what is refused."""
    disk, share = image(t.tmp / "disk.img", 4), t.tmp / "share"
    devices = ["-drive", f"if=none,id=disk,format=raw,file={disk}", "-device", "virtio-scsi-pci",
               "-device", "scsi-hd,drive=disk,wwn=0x5000c500a0b1c2d3", "-device", "scsi-cd"]
    with t.serve(f"9p,path={share.parent},ro=on,tag=share") as viodev:
        with_libraries([viodev.binary, viodev.built("tests/guest/passthrough")], share)
        with t.guest(attach(viodev), devices, modules=["9pnet_virtio", "9p", "virtio_scsi", "sg", "sd_mod"], memory="1G") as guest:
            guest.check("mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576 share /mnt && cp -r /mnt/share/. /tmp/ && "
                        "umount /mnt && ln -s /tmp/lib/ld-linux-x86-64.so.2 /lib64/")
            guest.check(until("[ $(ls /sys/class/scsi_generic | wc -l) = 2 ]"))
            guest.check("""
                export LD_LIBRARY_PATH=/tmp/lib
                sg() { grep -lx $1 /sys/class/scsi_generic/*/device/type | sed 's|.*generic/|/dev/|; s|/device.*||'; }
                /tmp/viodev serve --dir=/run/v scsi,id=s,lun0=$(sg 0),lun0.type=passthrough,lun1=$(sg 5),lun1.type=passthrough \
                    scsi,id=r,lun0=$(sg 0),lun0.type=passthrough,lun0.ro=on >/tmp/ready 2>/tmp/messages &
            """)
            guest.check(until("grep -qx ready /tmp/ready") + " || (cat /tmp/messages; false)")
            status, output = guest.run("LD_LIBRARY_PATH=/tmp/lib /tmp/passthrough /run/v/s.sock 2>&1; s=$?; cat /tmp/messages; exit $s")
            assert status == 0, output
            guest.check("LD_LIBRARY_PATH=/tmp/lib /tmp/passthrough /run/v/r.sock ro 2>&1")
            own_name(guest)
            told = json.loads(guest.check("LD_LIBRARY_PATH=/tmp/lib /tmp/viodev ctl /run/v/s.ctl status --json"))["reply"]
            assert told["sandbox"]["seccomp"] and told["sandbox"]["nobody"] and told["sandbox"]["no-capabilities"], told
            guest.check("kill $(pidof viodev); " + until("! pidof viodev"))
    data = disk.read_bytes()
    assert all(data[block * 512:][:512] == bytes([(block + 1) % 256]) * 512 for block in range(2048)) and not any(data[1 << 20:])
