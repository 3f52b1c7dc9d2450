# SPDX-License-Identifier: BSD-2-Clause
"""The kit and the harness themselves, shown with QEMU's own devices."""

import time

from checks import rngtest, until
from vm import GuestError

DISK_MIB = 64


def disk(t):
    path = t.tmp / "disk.raw"
    with open(path, "wb") as file:
        file.truncate(DISK_MIB << 20)
    return ["-drive", f"if=none,id=disk,format=raw,file={path}", "-device", "virtio-blk-pci,drive=disk"]


def test_commands(t):
    """A q35 guest boots; output, exit status, long input and several lines pass unharmed; a panic ends it."""
    start = time.monotonic()
    with t.guest() as guest:
        t.say(f"commands after {time.monotonic() - start:.1f} s")
        assert guest.run("printf 'a\\n\\nb'; exit 7") == (7, "a\n\nb")
        assert guest.run("if true\nthen echo $((6 * 7))\nfi") == (0, "42\n")
        text = "".join(chr(33 + i % 90) for i in range(9000)).replace("'", "")
        assert guest.check(f"cat <<'END'\n{text}\nEND") == text + "\n"
        start = time.monotonic()
        size = 300_000
        assert guest.check(f"dd if=/dev/zero bs=1000 count={size // 1000} 2>/dev/null | tr '\\0' x") == "x" * size
        t.say(f"{size} bytes of output in {time.monotonic() - start:.1f} s")
        guest.check("echo a line of dmesg >/dev/kmsg; dmesg | grep 'a line of dmesg'")
        try:
            guest.check("echo ouch; false")
            raise AssertionError("check() let a failure pass")
        except GuestError as error:
            assert "ouch" in str(error)
        try:
            guest.run("sleep 60", timeout=0.5)
            raise AssertionError("run() waited longer than its timeout")
        except GuestError as error:
            assert "timeout" in str(error)
    with t.guest(backend="none") as guest:
        try:
            guest.run("echo c >/proc/sysrq-trigger")
            raise AssertionError("the guest survived its panic")
        except GuestError as error:
            assert "QEMU ended" in str(error) and "sysrq triggered crash" in guest.console


def test_devices_q35(t):
    """On q35 with Debian's programs: fio verifies a disk, rngtest the entropy, also after system_reset and reboot."""
    with t.guest(disk(t), "-device", "virtio-rng-pci", tools=True, cpus=2) as guest:
        t.say(f"commands after {guest.boot_seconds:.1f} s")
        assert guest.check("cat /sys/block/vda/size") == f"{DISK_MIB * 2048}\n"
        check_devices(guest)
        guest.check("lspci -nn | grep 1af4; mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt && echo x >/mnt/x && sync")
        for how in "qmp", "guest":
            guest.reset(how)
            t.say(f"again after {guest.boot_seconds:.1f} s ({how})")
            assert guest.check("mount -t ext4 /dev/vda /mnt && cat /mnt/x") == "x\n"
        assert guest.qmp("query-status")["status"] == "running"


def test_devices_pc(t):
    """On pc, with the devices' legacy interfaces and no shared memory; a device plugged in while it runs."""
    legacy = ",disable-modern=on,disable-legacy=off"
    with t.guest(disk(t)[:-1], disk(t)[-1] + legacy, "-device", "virtio-rng-pci" + legacy, machine="pc",
                 backend="none", tools=True) as guest:
        check_devices(guest)
        guest.qmp("object-add", {"qom-type": "rng-builtin", "id": "source"})
        guest.qmp("device_add", driver="virtio-rng-pci", rng="source", id="second")
        guest.check(until("[ -e /sys/bus/virtio/devices/virtio2 ]"))
        guest.check("load-drivers; grep virtio_rng.1 /sys/class/misc/hw_random/rng_available")


def test_ovmf(t):
    """OVMF starts the kernel, and a virtio disk works."""
    with t.guest(disk(t), firmware="ovmf", modules=["virtio_blk"]) as guest:
        t.say(f"commands after {guest.boot_seconds:.1f} s")
        guest.check("ls -d /sys/firmware/efi && dd if=/dev/vda of=/dev/null bs=1M count=4")


def check_devices(guest):
    guest.check("fio --name=v --filename=/dev/vda --size=8M --bs=16k --rw=randwrite --ioengine=libaio --direct=1 "
                "--iodepth=8 --verify=crc32c --verify_fatal=1 --randrepeat=0")
    rngtest(guest)
