# SPDX-License-Identifier: BSD-2-Clause
"""One guest with all seven devices as vhost-user back-ends, with rings as large as QEMU makes them."""

from checks import load, status, until
from test_all import MOUNT, devices, together, typed
from test_vhost_user import OPTIONS, front_end

GENERIC = "vhost-user-test-device-pci"


def front_ends(viodev):
    return [front_end(viodev, "disk", "vhost-user-blk-pci", **{"num-queues": 1, "queue-size": 1024}),
            front_end(viodev, "scsi", "vhost-user-scsi-pci", num_queues=1, virtqueue_size=1024),
            front_end(viodev, "rng", "vhost-user-rng-pci"),
            front_end(viodev, "keys", "vhost-user-input-pci"),
            front_end(viodev, "con", GENERIC, **{"virtio-id": 3, "num_vqs": 6, "config_size": 12}),
            front_end(viodev, "tree", GENERIC, **{"virtio-id": 9, "num_vqs": 1, "config_size": 6}),
            "-chardev", f"socket,id=c-net,path={viodev.socket('net')}", "-netdev", "vhost-user,id=n,chardev=c-net",
            "-device", "virtio-net-pci,netdev=n,rx_queue_size=1024,tx_queue_size=1024"]


def test_front_end_killed(t):
    """kill -9 of QEMU amid requests: all seven devices work in its next guest, each still the same process."""
    with t.serve(*devices(t, "modern"), options=OPTIONS) as viodev:
        pids = {id: status(viodev, id)["pid"] for id in viodev.sockets}
        with t.guest(front_ends(viodev), tools=True, cpus=2, memory="768M") as guest:
            guest.check(until("[ -b /dev/sda ]"))
            guest.check(f"({load('/dev/vda', '/dev/sda', rw='randwrite')}) & sleep 1")
            guest.kill()
        with t.guest(front_ends(viodev), tools=True, cpus=2, memory="768M") as guest:
            guest.check("ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2 && "
                        f"mkdir /tree && modprobe 9pnet_virtio && {MOUNT}")
            guest.check(until("[ -b /dev/sda ]"))
            together(guest, viodev, t)
            typed(guest, viodev)
            for id, queue in ("disk", 0), ("scsi", 2), ("net", 1):
                assert status(viodev, id)["queues"][queue]["size"] == 1024, id
        for id, pid in pids.items():
            told = status(viodev, id)
            assert told["pid"] == pid and told["driver-errors"] == 0 and told["server"]["bad-messages"] == 0, told
