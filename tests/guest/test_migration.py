# SPDX-License-Identifier: BSD-2-Clause
"""Guests that move to another QEMU while they run, each QEMU with vhost-user back-ends of its own."""

import contextlib
import hashlib
import os
import socket
import struct
import threading

import vm
from checks import fio_command, image, status, until, wait_for
from hostnet import ip, private_network, tap_address, taps
from test_net import Server, guest_address, interface
from test_vhost_user import OPTIONS, front_end

MIB = 1 << 20


@contextlib.contextmanager
def pair(t, devices, arguments):
    """Two back-ends of the same devices, a guest on the first, and a QEMU on the second that waits for it."""
    uri = f"unix:{t.tmp}/migration"
    with t.serve(*devices(0), options=OPTIONS) as here, t.serve(*devices(1), options=OPTIONS) as there:
        # A kernel that clears pages before it gives them to a device would write to them itself.
        with t.guest(arguments(here), tools=True, append="init_on_alloc=0") as source, \
                t.guest(arguments(there), "-incoming", uri, tools=True, boot="paused") as destination:
            yield here, there, source, destination, uri


def start(source, uri):
    """Begins to migrate, with a guest that writes to memory until finish(); returns when each page was sent once."""
    source.check("(until [ -e /tmp/stop ]; do yes viodev | dd of=/tmp/memory bs=1M count=32 iflag=fullblock "
                 "conv=notrunc 2>/dev/null; done) & sleep 1")
    source.qmp("migrate-set-parameters", {"downtime-limit": 0, "max-bandwidth": 64 * MIB})
    source.qmp("migrate", uri=uri)
    wait_for("the first pass", lambda: progress(source).get("dirty-sync-count", 0) >= 2, vm.PATIENCE)
    source.qmp("migrate-set-parameters", {"max-bandwidth": MIB})


def progress(source):
    told = source.qmp("query-migrate")
    assert told["status"] in ("setup", "active", "device", "completed"), told
    return {**told, **told.get("ram", {})}


def finish(t, source, destination):
    """Completes it; the guest then runs on the other side."""
    assert progress(source)["status"] == "active"
    source.check("touch /tmp/stop")
    source.qmp("migrate-set-parameters", {"downtime-limit": 2000, "max-bandwidth": 1024 * MIB})
    wait_for("the end of the migration", lambda: progress(source)["status"] == "completed", vm.PATIENCE)
    told = progress(source)
    t.say(f"{told['transferred'] >> 20} MiB in {told['dirty-sync-count']} passes, stopped for {told['downtime']} ms")
    destination.qmp("cont")


def moves(t, device, driver, disk, path):
    """Pages that the device writes meanwhile are right on the other side; fio continues with verification."""
    with open(path, "r+b") as file:
        data = os.urandom(16 * MIB)
        file.seek(32 * MIB)
        file.write(data)
    with pair(t, device, lambda viodev: front_end(viodev, "d", driver)) as (here, there, source, destination, uri):
        source.check(until(f"[ -b {disk} ]"))
        load = fio_command("moved", disk, size="8M", more="--time_based --runtime=3")
        source.check(f"(result=0; until [ -e /tmp/moved ] || [ $result != 0 ]; do {load} >/tmp/fio 2>&1; result=$?; done; "
                     "echo $result >/tmp/status) & sleep 1")
        start(source, uri)
        # Into the page cache, which lives as long as the disk is open: nobody but the device writes there.
        source.check(f"sleep 600 <{disk} >/dev/null 2>&1 & dd if={disk} of=/dev/null bs=1M skip=32 count=16 2>/dev/null")
        finish(t, source, destination)
        before = sum(queue["chains"] for queue in status(there, "d")["queues"])
        digest = destination.check(f"dd if={disk} bs=1M skip=32 count=16 2>/dev/null | sha256sum").split()[0]
        assert digest == hashlib.sha256(data).hexdigest(), "stale pages"
        destination.check("touch /tmp/moved; " + until("[ -e /tmp/status ]"))
        assert destination.check("cat /tmp/status") == "0\n", destination.run("cat /tmp/fio; dmesg | tail")[1]
        assert sum(queue["chains"] for queue in status(there, "d")["queues"]) > before
        for viodev in here, there:
            told = status(viodev, "d")
            assert told["driver-errors"] == 0 and told["server"]["bad-messages"] == 0, (told, viodev.messages)


def test_block(t):
    """vhost-user-blk: a disk's requests continue in another back-end, with all that the first one wrote."""
    path = image(t.tmp / "disk.raw", 64)
    moves(t, lambda end: [f"block,id=d,path={path},share={('off', 'on')[end]}"], "vhost-user-blk-pci", "/dev/vda", path)


def test_scsi(t):
    """vhost-user-scsi: the same."""
    path = image(t.tmp / "disk.raw", 64)
    moves(t, lambda end: [f"scsi,id=d,lun0={path},lun0.share={('off', 'on')[end]}"], "vhost-user-scsi-pci", "/dev/sda", path)


def nic(viodev):
    return ["-chardev", f"socket,id=c,path={viodev.socket('nic')}", "-netdev", "vhost-user,id=n,chardev=c",
            "-device", "virtio-net-pci,netdev=n,mac=52:54:00:11:22:33"]


def test_net(t):
    """-netdev vhost-user: a download continues at the other tap of a bridge, and all its bytes are right."""
    taps()
    digest, moved = hashlib.sha256(), threading.Event()

    def send(peer):
        """Up to the move, and some more."""
        rest = 4
        while rest > 0:
            rest -= moved.is_set()
            data = os.urandom(MIB)
            digest.update(data)
            peer.sendall(data)

    with private_network(), Server(send) as server:
        ip("link add br0 type bridge")
        tap_address("br0", 1)
        devices = lambda end: [f"net,id=nic,backend=tap,ifname=tap{end},bps=3M"]
        with pair(t, devices, nic) as (here, there, source, destination, uri):
            for end in range(2):
                ip(f"link set tap{end} master br0")
                ip(f"link set tap{end} up")
            guest_address(source, interface(source, "52:54:00:11:22:33"), 1)
            source.check("ping -c 1 -W 5 10.1.0.1")
            source.check(f"(nc 10.1.0.1 {server.port} </dev/null | sha256sum >/tmp/sum; touch /tmp/done) & sleep 1")
            start(source, uri)
            finish(t, source, destination)
            got = status(there, "nic")["rx"]["bytes"]
            moved.set()
            destination.check(until("[ -e /tmp/done ]"))
            assert destination.check("cat /tmp/sum").split()[0] == digest.hexdigest()
            more = status(there, "nic")["rx"]["bytes"] - got
            assert more > MIB, f"{more} bytes after the move"
            for viodev in here, there:
                told = status(viodev, "nic")
                assert told["driver-errors"] == 0 and told["server"]["bad-messages"] == 0, (told, viodev.messages)


def test_refused(t):
    """QEMU does not migrate its vhost-user-rng and vhost-user-input, whatever the back-end offers."""
    with t.serve("rng,id=rng", "input,id=keys,kind=keyboard", options=OPTIONS) as viodev:
        for id, driver in ("rng", "vhost-user-rng-pci"), ("keys", "vhost-user-input-pci"):
            with t.guest(front_end(viodev, id, driver), boot="paused") as guest:
                try:
                    guest.qmp("migrate", uri=f"unix:{t.tmp}/nobody")
                    raise AssertionError(f"{driver} is migrated")
                except vm.GuestError as error:
                    assert "non-migratable" in str(error), error


class FrontEnd:
    """A front-end that only moves a device's state."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(vm.PATIENCE)
        self.socket.connect(path)

    def ask(self, request, payload=b"", fds=()):
        """A message that has an answer, a number."""
        socket.send_fds(self.socket, [struct.pack("=III", request, 1, len(payload)) + payload], fds)
        return struct.unpack("=IIIQ", self.socket.recv(20, socket.MSG_WAITALL))[3]

    def transfer(self, direction, fd):
        assert self.ask(42, struct.pack("=II", direction, 0), [fd]) == 0x100
        os.close(fd)

    def save(self):
        reader, writer = os.pipe()
        self.transfer(0, writer)
        with open(reader, "rb") as file:
            state = file.read()
        assert self.ask(43) == 0
        return state

    def load(self, state):
        reader, writer = os.pipe()
        self.transfer(1, reader)
        with open(writer, "wb") as file:
            file.write(state)
        return self.ask(43) == 0


def test_device_state(t):
    """Device state moves between sandboxed processes by the protocol; rng and 9p do not offer it."""
    disk = image(t.tmp / "disk.raw", 1)
    moving = {"net": "backend=null", "block": f"path={disk},share=on", "console": f"console=file:{t.tmp}/log,ports=4",
              "scsi": f"lun0={disk},lun0.share=on,reservations={t.tmp}/kept", "input": "kind=keyboard"}
    devices = [f"{type},id={type},{options}" for type, options in moving.items()]
    staying = ["rng,id=rng", f"9p,id=p9,tag=t,path={t.tmp}"]
    other = f"scsi,id=other,lun1={disk},lun1.share=on"
    with t.serve(*devices, *staying, options=OPTIONS) as here, t.serve(*devices, other, options=OPTIONS) as there:
        for id in moving:
            source, destination = FrontEnd(here.socket(id)), FrontEnd(there.socket(id))
            assert source.ask(15) >> 19 & 1
            state = source.save()
            assert state[8:].startswith(id.encode()), state
            assert destination.load(state) and destination.save() == state, id
            assert not destination.load(state[:-1])
        for id in "rng", "p9":
            assert not FrontEnd(here.socket(id)).ask(15) >> 19 & 1
        assert not FrontEnd(there.socket("other")).load(FrontEnd(here.socket("scsi")).save())
        wait_for("the reason", lambda: "cannot restore t0.lun0: no such unit" in there.messages)
