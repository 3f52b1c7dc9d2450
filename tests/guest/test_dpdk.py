# SPDX-License-Identifier: BSD-2-Clause
"""DPDK's virtio-user as front-end of a network device: packets are counted on both ends."""

import os
import socket
import struct
import time

import pytest
from checks import status, wait_for
from testpmd import Testpmd
from vm import PATIENCE

VHOST_USER = ("--transport=vhost-user",)
FRAMES = 2000
CPU = max(os.sched_getaffinity(0))

pytestmark = pytest.mark.xdist_group("dpdk")  # it polls: two of them would share the processor


def virtio_user(viodev, *more):
    return ",".join(("net_virtio_user0", f"path={viodev.socket('nic')}", *more))


def served(viodev):
    told = status(viodev, "nic")
    assert told["driver-errors"] == 0 and told["server"]["bad-messages"] == 0, (told, viodev.messages)
    return told


def sends(t, *ring, more=""):
    """What testpmd says that it has sent has reached the back-end, but for what was still in the ring."""
    with t.serve("net,id=nic,backend=null" + more, options=VHOST_USER) as viodev:
        with Testpmd(t.kit, virtio_user(viodev, *ring), "txonly", CPU) as front_end:
            wait_for("packets", lambda: status(viodev, "nic")["tx"]["frames"] > FRAMES)
            features = status(viodev, "nic")["features"]
            assert ("RING_PACKED" in features) == ("packed=on" in more)
            assert ("IN_ORDER" in features) == ("in-order=on" in more)
            time.sleep(1)
            _, sent = front_end.stop()
        told = served(viodev)
        t.say(f"{told['tx']['frames']} frames of {sent}, {told['tx']['bytes']} bytes")
        assert sent - 256 <= told["tx"]["frames"] <= sent and told["tx"]["bytes"] == 64 * told["tx"]["frames"], (told, sent)


def receives(t, *ring, more=""):
    """Every frame from the network is counted by testpmd."""
    ours, theirs = str(t.tmp / "ours"), str(t.tmp / "theirs")
    with t.serve(f"net,id=nic,backend=dgram,local={theirs},remote={ours}" + more, options=VHOST_USER) as viodev, \
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as network:
        network.bind(ours)
        network.settimeout(PATIENCE)
        with Testpmd(t.kit, virtio_user(viodev, *ring), "rxonly", CPU, "--stats-period=1") as front_end:
            for i in range(FRAMES):
                network.sendto(b"\xff" * 6 + b"\x52\x54\0\0\0\1\x88\xb5" + struct.pack(">I", i) + bytes(42), theirs)
            front_end.await_received(FRAMES)
            received, _ = front_end.stop()
        assert received == served(viodev)["rx"]["frames"] == FRAMES, received
    os.unlink(ours)


def test_split(t):
    """virtio-user with split rings sends and receives."""
    sends(t)
    receives(t)


def test_echo(t):
    """What a front-end gets back is what it has sent, but for what was lost or on its way."""
    with t.serve("net,id=nic,backend=echo", options=VHOST_USER) as viodev:
        with Testpmd(t.kit, virtio_user(viodev), "flowgen", CPU) as front_end:
            wait_for("packets", lambda: status(viodev, "nic")["rx"]["frames"] > FRAMES)
            received, _ = front_end.stop()
        told = served(viodev)
        assert told["rx"]["frames"] - 512 <= received <= told["rx"]["frames"] <= told["tx"]["frames"], (told, received)


def test_packed(t):
    """virtio-user with packed rings; and where they are not offered, it takes what there is."""
    sends(t, "packed_vq=1", more=",packed=on")
    receives(t, "packed_vq=1", more=",packed=on")
    sends(t, "packed_vq=1")


def test_in_order(t):
    """virtio-user takes IN_ORDER where it is offered, with either layout."""
    for ring, more in ((), ",in-order=on"), (("packed_vq=1",), ",in-order=on,packed=on"):
        sends(t, *ring, more=more)
        receives(t, *ring, more=more)


def test_merged(t):
    """virtio-user without merged buffers, with two queue pairs."""
    with t.serve("net,id=nic,backend=null,queues=2", options=VHOST_USER) as viodev:
        with Testpmd(t.kit, virtio_user(viodev, "mrg_rxbuf=0", "queues=2"), "txonly", CPU, "--txq=2", "--rxq=2") as front_end:
            queues = lambda: status(viodev, "nic")["queues"]
            wait_for("packets of both", lambda: all(queues()[i]["chains"] > FRAMES for i in (1, 3)))
            _, sent = front_end.stop()
        told = served(viodev)
        assert sent - 512 <= told["tx"]["frames"] <= sent, (told, sent)
