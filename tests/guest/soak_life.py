# SPDX-License-Identifier: BSD-2-Clause
"""A VM's life: every event with every transport, and with QEMU's own devices as the yardstick."""

import pathlib

from test_all import devices
from test_life import EVENTS, OPTIONS, frozen, go_through, life, machine, peer
from test_vhost_user_all import front_ends

ALL = (*EVENTS, frozen)


class Qemus:
    """QEMU's own devices, as far as events ask a Viodev for anything."""

    sockets = {}

    def __init__(self, t):
        self.t, self.guest = t, None

    def arguments(self):
        tmp = self.t.tmp
        devices(self.t, "modern")
        return ["-drive", f"if=none,id=disk,format=raw,file={tmp}/disk.img", "-device", "virtio-blk-pci,drive=disk",
                "-device", "virtio-scsi-pci", "-drive", f"if=none,id=scsi,format=raw,file={tmp}/lun.img",
                "-device", "scsi-hd,drive=scsi", "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net",
                "-chardev", f"socket,id=port,path={tmp}/port,server=on,wait=off", "-device", "virtio-serial-pci",
                "-device", "virtserialport,chardev=port,name=org.example", "-device", "virtio-rng-pci",
                "-fsdev", f"local,id=tree,path={tmp}/tree,security_model=none",
                "-device", "virtio-9p-pci,fsdev=tree,mount_tag=tree", "-device", "virtio-keyboard-pci"]

    def built(self, name):
        return pathlib.Path(self.t.viodev).resolve().parents[2] / name

    def ctl(self, id, verb, *words):
        if verb == "resize":
            self.guest.qmp("block_resize", device=id, size=40 << 20)
        else:
            _, name, value = words
            key = {"type": "qcode", "data": name.removeprefix("KEY_").lower()}
            self.guest.qmp("input-send-event", {"events": [{"type": "key", "data": {"down": value == "1", "key": key}}]})


def test_qemu(t):
    """QEMU's own devices go through the same."""
    qemus = Qemus(t)
    with t.guest(peer(t), qemus.arguments(), **machine()) as guest:
        qemus.guest = guest
        go_through(guest, qemus, t, ALL)


def test_modern(t):
    """Modern devices."""
    life(t, "modern", ALL)


def test_transitional(t):
    """Transitional devices."""
    life(t, "transitional", ALL)


def test_legacy(t):
    """Legacy devices (input: modern)."""
    life(t, "legacy", ALL)


def test_vhost_user(t):
    """Over vhost-user."""
    life(t, "modern", ALL, front_ends, OPTIONS)
