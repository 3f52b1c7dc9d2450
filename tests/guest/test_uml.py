# SPDX-License-Identifier: BSD-2-Clause
"""User Mode Linux as a front-end of vhost-user, which has no PCI, no status, no reset, and pipes for doorbells."""

import hashlib
import http.server
import os
import threading

from checks import fio, image, status, until, wait_for
from uml import Uml

OPTIONS = ("--transport=vhost-user",)


def test_block_scsi(t):
    """B6: disks by virtio-blk and virtio-scsi: fio verifies, a file system; the drivers go and come back."""
    disk, unit = (image(t.tmp / name, 64) for name in ("disk.raw", "unit.raw"))
    with t.serve(f"block,id=disk,path={disk}", f"scsi,id=scsi,lun0={unit}", options=OPTIONS) as viodev:
        with Uml((viodev.socket("disk"), 2), (viodev.socket("scsi"), 8), kit=t.kit, tools=True) as guest:
            guest.check(until("[ -b /dev/vda ] && [ -b /dev/sda ]"))
            for name in "/dev/vda", "/dev/sda":
                fio(guest, "one", name, size="8M")
            guest.check("mkfs.ext4 -q /dev/vda && e2fsck -fn /dev/vda")
            for driver, name in ("virtio_blk", "vda"), ("virtio_scsi", "sda"):
                guest.check(f"cd /sys/bus/virtio/drivers/{driver} && device=$(basename $(ls -d virtio*)) && "
                            f"echo $device >unbind && echo $device >bind && {until(f'[ -b /dev/{name} ]')}")
                fio(guest, "two", f"/dev/{name}", size="4M")
            viodev.ctl("disk", "resize", "96M")
            guest.check(until(f"[ $(cat /sys/block/vda/size) -eq {96 * 2048} ]"))
        for id in "disk", "scsi":
            told = status(viodev, id)
            assert told["driver-errors"] == 0 and told["server"]["bad-messages"] == 0, (told, viodev.messages)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_net_console(t):
    """B6: a file from the host by TCP is whole; a line goes to the host by the console."""
    data = os.urandom(8 << 20)
    (t.tmp / "file").write_bytes(data)
    out = t.tmp / "out"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Quiet(*args, directory=t.tmp))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with t.serve("net,id=nic,backend=user", f"console,id=con,console=file:{out}", options=OPTIONS) as viodev:
        with Uml((viodev.socket("nic"), 1), (viodev.socket("con"), 3), kit=t.kit) as guest:
            guest.check(until("[ -d /sys/class/net/eth0 ]"))
            guest.check("ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up && ip route add default via 10.0.2.2")
            digest = guest.check(f"wget -q -O - http://10.0.2.2:{server.server_port}/file | sha256sum").split()[0]
            assert digest == hashlib.sha256(data).hexdigest()
            guest.check(f"{until('[ -c /dev/hvc0 ]')} && echo hello >/dev/hvc0")
        wait_for("the line", lambda: b"hello" in out.read_bytes())
        for id in "nic", "con":
            told = status(viodev, id)
            assert told["driver-errors"] == 0 and told["server"]["bad-messages"] == 0, (told, viodev.messages)
    server.shutdown()
