# SPDX-License-Identifier: BSD-2-Clause
"""One guest with all seven devices as vhost-user back-ends, with rings as large as QEMU makes them."""

from checks import fio_command, load, status, until
from test_all import MOUNT, devices, together, typed
from test_vhost_user import OPTIONS, front_end

GENERIC = "vhost-user-test-device-pci"


def front_ends(viodev, packed="off", reconnect=None):
    """QEMU's arguments; disk, scsi and net reconnect after so many milliseconds."""
    again = f",reconnect-ms={reconnect}" if reconnect else ""
    attach = lambda *names, **properties: front_end(viodev, *names, packed=packed, **properties)
    return [attach("disk", "vhost-user-blk-pci", reconnect=reconnect, **{"num-queues": 1, "queue-size": 1024}),
            attach("scsi", "vhost-user-scsi-pci", reconnect=reconnect, num_queues=1, virtqueue_size=1024),
            attach("rng", "vhost-user-rng-pci"),
            attach("keys", "vhost-user-input-pci"),
            attach("con", GENERIC, **{"virtio-id": 3, "num_vqs": 6, "config_size": 12}),
            attach("tree", GENERIC, **{"virtio-id": 9, "num_vqs": 1, "config_size": 6}),
            "-chardev", f"socket,id=c-net,path={viodev.socket('net')}{again}", "-netdev", "vhost-user,id=n,chardev=c-net",
            "-device", f"virtio-net-pci,netdev=n,rx_queue_size=1024,tx_queue_size=1024,packed={packed}"]


def work(guest, viodev, t):
    """All seven at work at once."""
    guest.check("ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2 && "
                f"mkdir /tree && modprobe 9pnet_virtio && {MOUNT}")
    guest.check(until("[ -b /dev/sda ]"))
    together(guest, viodev, t)
    typed(guest, viodev)


def test_front_end_killed(t):
    """kill -9 of QEMU amid requests: all seven devices work in its next guest, each still the same process."""
    with t.serve(*devices(t, "modern"), options=OPTIONS) as viodev:
        pids = {id: status(viodev, id)["pid"] for id in viodev.sockets}
        with t.guest(front_ends(viodev), tools=True, cpus=2, memory="768M") as guest:
            guest.check(until("[ -b /dev/sda ]"))
            guest.check(f"({load('/dev/vda', '/dev/sda', rw='randwrite')}) & sleep 1")
            guest.kill()
        with t.guest(front_ends(viodev), tools=True, cpus=2, memory="768M") as guest:
            work(guest, viodev, t)
            for id, queue in ("disk", 0), ("scsi", 2), ("net", 1):
                assert status(viodev, id)["queues"][queue]["size"] == 1024, id
        for id, pid in pids.items():
            told = status(viodev, id)
            assert told["pid"] == pid and told["driver-errors"] == 0 and told["server"]["bad-messages"] == 0, told


def test_packed(t):
    """All seven devices with packed rings, also after the guest was paused and after its reboot."""
    with t.serve(*devices(t, "modern", ",packed=on"), options=OPTIONS) as viodev:
        with t.guest(front_ends(viodev, "on"), tools=True, cpus=2, memory="768M") as guest:
            work(guest, viodev, t)
            for id in viodev.sockets:
                assert "RING_PACKED" in status(viodev, id)["features"], status(viodev, id)
            jobs = " && ".join(fio_command(disk, f"/dev/{disk}", more="--time_based --runtime=2") for disk in ("vda", "sda"))
            guest.check(f"(({jobs}) >/tmp/load 2>&1; echo $? >/tmp/loaded) </dev/null >/dev/null 2>&1 &")
            for _ in range(10):
                guest.qmp("stop")
                guest.qmp("cont")
            guest.check(until("[ -s /tmp/loaded ]") + " && cat /tmp/load && [ $(cat /tmp/loaded) = 0 ]")
            guest.check("ping -c 3 -W 10 10.0.2.2")
            guest.reset("guest")
            guest.check("rm -rf /tree")
        for id in viodev.sockets:
            told = status(viodev, id)
            assert told["driver-errors"] == 0 and told["server"]["bad-messages"] == 0, (told, viodev.messages)
