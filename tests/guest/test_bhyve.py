# SPDX-License-Identifier: BSD-2-Clause
"""A device model in bhyve's style (bhyve_ramdisk.c), as Linux's driver uses it."""

import vm
from checks import MODES, served_by

INDIRECT_DESC, EVENT_IDX, VERSION_1, NOTIFICATION_DATA = 28, 29, 32, 38
SEG_MAX, FLUSH = 2, 9
OFFERED = {SEG_MAX, FLUSH, INDIRECT_DESC, EVENT_IDX}
MIB = 4


def use(guest, mode):
    """Features as masks say, a serial number, and every byte back that was written."""
    text = guest.check("cat /sys/bus/virtio/devices/virtio0/features").strip()
    features = {number for number, bit in enumerate(text) if bit == "1"}
    assert features == OFFERED | ({VERSION_1, NOTIFICATION_DATA} if mode != "legacy" else set()), f"{mode}: {sorted(features)}"
    assert guest.check("cat /sys/block/vda/serial").strip() == "written for bhyve"
    assert int(guest.check("cat /sys/block/vda/size")) == 32 << 11

    guest.check(f"head -c {MIB << 20} /dev/urandom >/tmp/data && dd if=/tmp/data of=/dev/vda bs=1M conv=fsync")
    guest.check("echo 3 >/proc/sys/vm/drop_caches")
    for _ in range(2):
        guest.check(f"dd if=/dev/vda bs=64k count={MIB * 16} iflag=direct | cmp - /tmp/data")
    error = guest.run("dd if=/dev/vda of=/dev/null bs=512 skip=65536 count=1")
    assert error[1].startswith("0+0"), error


def test_ramdisk(t):
    """Legacy, transitional and modern; the driver is unbound and bound again in between, which is a reset."""
    for mode in MODES:
        with served_by(t, "tests/guest/bhyve_serve", mode) as device, t.guest(vm.vfio_user_device(device.path)) as guest:
            use(guest, mode)
            guest.check("echo virtio0 >/sys/bus/virtio/drivers/virtio_blk/unbind")
            guest.check("echo virtio0 >/sys/bus/virtio/drivers/virtio_blk/bind")
            use(guest, mode)
        assert "EVENT_IDX" in device.output and "device stops" not in device.errors, (device.output, device.errors)
