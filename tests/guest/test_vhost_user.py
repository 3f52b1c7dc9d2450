# SPDX-License-Identifier: BSD-2-Clause
"""Devices as vhost-user back-ends, attached to QEMU's front-ends."""

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import threading
import time

from checks import fio, fio_command, image, opened, rngtest, status, until, wait_for
from hostnet import private_network, tap_address, taps
from test_lifecycle import file_system, wait_serving
from test_net import Server, both_ways, guest_address, intact, interface, reaches
from vm import PATIENCE

OPTIONS = ("--transport=vhost-user",)


def front_end(viodev, id, driver, **properties):
    """QEMU's arguments for a vhost-user device; reconnect= is in milliseconds."""
    reconnect = properties.pop("reconnect", None)
    more = f",reconnect-ms={reconnect}" if reconnect else ""
    words = ",".join(f"{key}={value}" for key, value in properties.items())
    return ["-chardev", f"socket,id=c-{id},path={viodev.socket(id)}{more}",
            "-device", f"{driver},id={id},chardev=c-{id}" + (f",{words}" if words else "")]


def test_block(t):
    """vhost-user-blk: fio on two queues, a file system, resize, the guest's reboot; a second guest on the same server."""
    disk = image(t.tmp / "disk.raw", 64)
    with t.serve(f"block,id=disk,path={disk},queues=2,serial=viodev-vhost", options=OPTIONS) as viodev:
        with t.guest(front_end(viodev, "disk", "vhost-user-blk-pci", **{"num-queues": 2}), tools=True, cpus=2) as guest:
            assert guest.check("cat /sys/block/vda/serial").strip() == "viodev-vhost"
            two = "--numjobs=2 --offset_increment=16M --cpus_allowed=0-1 --cpus_allowed_policy=split"
            fio(guest, "two", "/dev/vda", size="4M", more=two)
            told = status(viodev, "disk")
            assert all(queue["chains"] for queue in told["queues"]), told
            guest.check("mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt && cp /usr/bin/busybox /mnt && "
                        "(cd /mnt && sha256sum busybox >sum) && umount /mnt && e2fsck -fn /dev/vda && "
                        "mount -t ext4 /dev/vda /mnt && (cd /mnt && sha256sum -c sum) && umount /mnt")
            viodev.ctl("disk", "resize", "96M")
            guest.check(until(f"[ $(cat /sys/block/vda/size) -eq {96 * 2048} ]"))
            guest.reset("guest")
            fio(guest, "again", "/dev/vda", size="2M")
            told = status(viodev, "disk")
            assert told["driver-errors"] == 0 and told["server"]["bad-messages"] == 0, (told, viodev.messages)
        with t.guest(front_end(viodev, "disk", "vhost-user-blk-pci"), tools=True) as guest:
            fio(guest, "next", "/dev/vda", size="2M")


def test_rng(t):
    """vhost-user-rng: entropy, also after the guest's reboot; the guest outlives it (QEMU does not attach it anew)."""
    with t.serve("rng,id=rng", options=OPTIONS) as viodev:
        with t.guest(front_end(viodev, "rng", "vhost-user-rng-pci"), tools=True) as guest:
            rngtest(guest, 5)
            guest.reset("guest")
            rngtest(guest, 5)
            pid = status(viodev, "rng")["pid"]
            os.kill(pid, signal.SIGKILL)
            wait_serving(viodev, "rng", pid)
            guest.check("true")
        assert status(viodev, "rng")["driver-errors"] == 0


def test_scsi(t):
    """vhost-user-scsi: a disk, written and verified; unbinding and binding its driver."""
    disk = image(t.tmp / "disk.raw", 32)
    with t.serve(f"scsi,id=scsi,lun0={disk}", options=OPTIONS) as viodev:
        with t.guest(front_end(viodev, "scsi", "vhost-user-scsi-pci"), tools=True) as guest:
            guest.check(until("[ -b /dev/sda ]"))
            fio(guest, "one", "/dev/sda", size="4M")
            guest.check(f"cd /sys/bus/virtio/drivers/virtio_scsi && echo virtio0 >unbind && echo virtio0 >bind && "
                        f"{until('[ -b /dev/sda ]')}")
            fio(guest, "two", "/dev/sda", size="2M")
        assert status(viodev, "scsi")["driver-errors"] == 0


def test_input(t):
    """vhost-user-input: a keyboard is found, and a key that is injected arrives."""
    with t.serve("input,id=keys,kind=keyboard", options=OPTIONS) as viodev:
        with t.guest(front_end(viodev, "keys", "vhost-user-input-pci"), machine="q35,i8042=off") as guest:
            guest.check(until("[ -c /dev/input/event0 ]"))
            guest.check("(dd if=/dev/input/event0 of=/tmp/events bs=24 count=4 2>/dev/null; mv /tmp/events /tmp/all) & "
                        + opened("/dev/input/event0"))
            viodev.ctl("keys", "inject", "key", "KEY_A", "1")
            viodev.ctl("keys", "inject", "key", "KEY_A", "0")
            guest.check(until("[ -e /tmp/all ]"))
            words = guest.check("od -An -v -tu2 -w24 /tmp/all").split()
            events = [tuple(map(int, words[i + 8:i + 11])) for i in range(0, len(words), 12)]
            assert events == [(1, 30, 1), (0, 0, 0), (1, 30, 0), (0, 0, 0)], events


def test_9p(t):
    """9p, by QEMU's generic vhost-user device: a file of the host is read and one written."""
    share = t.tmp / "share"
    share.mkdir()
    (share / "hello").write_text("from the host\n")
    with t.serve(f"9p,id=share,path={share},tag=share", options=OPTIONS) as viodev:
        generic = front_end(viodev, "share", "vhost-user-test-device-pci",
                            **{"virtio-id": 9, "num_vqs": 1, "config_size": 64})
        with t.guest(generic) as guest:
            guest.check("mount -t 9p -o trans=virtio,version=9p2000.L,msize=65536 share /mnt")
            assert guest.check("cat /mnt/hello") == "from the host\n"
            guest.check("echo from the guest >/mnt/answer && umount /mnt")
        assert (share / "answer").read_text() == "from the guest\n"


def test_console(t):
    """console, by the generic device: bytes go both ways."""
    path = t.tmp / "out"
    with t.serve(f"console,id=con,console=file:{path}", options=OPTIONS) as viodev:
        generic = front_end(viodev, "con", "vhost-user-test-device-pci",
                            **{"virtio-id": 3, "num_vqs": 2, "config_size": 12})
        with t.guest(generic) as guest:
            guest.check(f"{until('[ -c /dev/hvc0 ]')} && echo hello >/dev/hvc0")
        wait_for("the line", lambda: b"hello" in path.read_bytes())


def test_net(t):
    """net, by -netdev vhost-user: two queue pairs, whole bytes with every offload, MTU, RARP, the guest's reboot."""
    taps()
    with private_network(), t.serve("net,id=nic,backend=tap,ifname=tap0,queues=2,mtu=4000", options=OPTIONS) as viodev:
        tap_address("tap0", 1)
        nic = ["-chardev", f"socket,id=c,path={viodev.socket('nic')}", "-netdev", "vhost-user,id=n,chardev=c,queues=2",
               "-device", "virtio-net-pci,netdev=n,mq=on,queue_reset=on,mac=52:54:00:11:22:33,host_mtu=4000,guest_announce=off"]
        with t.guest(nic, cpus=2, tools=True) as guest:
            device = interface(guest, "52:54:00:11:22:33")
            assert guest.check(f"cat /sys/class/net/{device}/mtu") == "4000\n"
            guest_address(guest, device, 1)
            reaches(guest, "10.1.0.1")
            intact(guest, device, mib=2)
            two_pairs(guest, viodev, device)
            # QEMU would not tell of the reset of a queue.
            assert "RING_RESET" not in status(viodev, "nic")["features"]
            assert guest.run(f"ethtool -G {device} rx 64")[0] != 0
            reaches(guest, "10.1.0.1")
            announced_by_rarp(guest)
            guest.reset("guest")
            guest_address(guest, interface(guest, "52:54:00:11:22:33"), 1)
            reaches(guest, "10.1.0.1")
        told = status(viodev, "nic")
        assert told["driver-errors"] == 0 and told["server"]["bad-messages"] == 0, (told, viodev.messages)


def two_pairs(guest, viodev, device):
    """The pairs that the guest uses are those that carry its packets."""
    used = lambda: [queue["chains"] for queue in status(viodev, "nic")["queues"][:4]]
    for pairs in 2, 1, 2:
        guest.check(f"ethtool -L {device} combined {pairs}")
        before = used()
        for processor in range(pairs):  # each has a pair of its own
            guest.check(until(f"taskset -c {processor} ping -c 1 -W 5 10.1.0.1"))
        both_ways(guest, "10.1.0.1")
        moved = [now - then for now, then in zip(used(), before)]
        assert all(moved[:2 * pairs]) and not any(moved[2 * pairs:]), (pairs, moved)
        assert status(viodev, "nic")["pairs"] == pairs


def announced_by_rarp(guest):
    """What QEMU asks for after a migration, when the guest does not announce itself."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x8035)) as sock:
        sock.bind(("tap0", 0x8035))
        sock.settimeout(PATIENCE)
        guest.qmp("announce-self", initial=50, max=100, rounds=3, step=50)
        frame = sock.recv(2048)
    mac = bytes.fromhex("525400112233")
    assert frame[:14] == b"\xff" * 6 + mac + b"\x80\x35" and frame[20:28] == b"\0\3" + mac, frame


def test_memory_plugged(t):
    """Memory is plugged and unplugged while fio verifies: the disk's buffers are in it, and the device unmaps it."""
    disk = image(t.tmp / "disk.raw", 64)
    with t.serve(f"block,id=disk,path={disk}", options=OPTIONS) as viodev:
        more = ["-m", "512M,slots=4,maxmem=2G", front_end(viodev, "disk", "vhost-user-blk-pci")]
        with t.guest(more, tools=True, append="memhp_default_state=online_movable") as guest:
            regions = status(viodev, "disk")["server"]["memory-regions"]
            load = fio_command("verified", "/dev/vda", more="--time_based --runtime=10")
            for i in range(2):
                guest.qmp("object-add", {"qom-type": "memory-backend-memfd", "id": "more", "size": 128 << 20,
                                         "share": True})
                guest.qmp("device_add", driver="pc-dimm", id="dimm", memdev="more")
                wait_for("its region", lambda: status(viodev, "disk")["server"]["memory-regions"] > regions)
                guest.check(until("[ $(awk '/MemTotal/ { print $2 }' /proc/meminfo) -gt 540000 ]"))
                if i == 0:  # its buffers come from there
                    guest.check(f"({load} >/tmp/fio 2>&1; echo $? >/tmp/status) & sleep 3")
                guest.qmp("device_del", id="dimm")
                guest.wait_event("DEVICE_DELETED")
                wait_for("no region", lambda: status(viodev, "disk")["server"]["memory-regions"] == regions)
                guest.qmp("object-del", id="more")
            guest.check(until("[ -e /tmp/status ]"))
            assert guest.check("cat /tmp/status") == "0\n", guest.run("cat /tmp/fio; dmesg | tail -n 20")[1]
        told = status(viodev, "disk")
        assert told["driver-errors"] == 0 and told["server"]["bad-messages"] == 0, (told, viodev.messages)


def in_flight(guest, disk):
    return sum(map(int, guest.check(f"cat /sys/block/{os.path.basename(disk)}/inflight").split()))


def end_device(t, viodev, guest, disk, signo):
    """Ends the process that serves the disk, while requests are in flight; waits until another does."""
    pid = status(viodev, "d")["pid"]

    def stopped():
        """How many requests it was stopped with."""
        os.kill(pid, signal.SIGSTOP)
        requests = in_flight(guest, disk)
        if not requests:
            os.kill(pid, signal.SIGCONT)
        return requests
    requests = wait_for("requests in flight", stopped)
    t.say(f"{requests} requests in flight")
    os.kill(pid, signo)
    with contextlib.suppress(ProcessLookupError):  # SIGKILL does not wait for this
        os.kill(pid, signal.SIGCONT)
    wait_serving(viodev, "d", pid)
    return requests


def survives(t, device, driver, disk, signo, count, **properties):
    """
    Writes are verified while the device ends and comes back. Large writes last, small reads do not: they end out of
    order, so that what is in flight cannot be told from the ring's indices. Returns how many were, each time.
    """
    with t.serve(device, options=OPTIONS) as viodev:
        with t.guest(front_end(viodev, "d", driver, reconnect=100, **properties), tools=True) as guest:
            guest.check(until(f"[ -b {disk} ]"))
            assert ("RING_PACKED" in status(viodev, "d")["features"]) == (properties.get("packed") == "on")
            more = "--ioengine=libaio --direct=1 --time_based --runtime=4"
            load = (fio_command("verified", disk, size="8M", depth=8, more="--time_based --runtime=4") +
                    f" --name=slow --filename={disk} --offset=8M --size=20M --rw=write --bs=1M --iodepth=4 {more}"
                    f" --name=quick --filename={disk} --offset=28M --size=4M --rw=randread --bs=4k --iodepth=4 {more}")
            guest.check(f"(result=0; until [ -e /tmp/stop ] || [ $result != 0 ]; do {load} >/tmp/fio 2>&1; result=$?; done; "
                        "echo $result >/tmp/status) &")
            requests = []
            for _ in range(count):
                requests.append(end_device(t, viodev, guest, disk, signo))
                time.sleep(1)
            guest.check("touch /tmp/stop; " + until("[ -e /tmp/status ]"))
            assert guest.check("cat /tmp/status") == "0\n", guest.run("cat /tmp/fio; dmesg | tail -n 20")[1]
            fio(guest, "after", disk, size="2M")
        told = status(viodev, "d")
        assert told["driver-errors"] == 0, told
    return requests


KILLS = 3  # soak_vhost_user.py has more


def test_block_killed(t):
    """D23: kill -9 of the device under fio with verification: no data is lost, and the guest sees nothing."""
    disk = image(t.tmp / "disk.raw", 32)
    survives(t, f"block,id=d,path={disk},cache=writethrough", "vhost-user-blk-pci", "/dev/vda", signal.SIGKILL, KILLS)


def test_packed_killed(t):
    """PK-34, D23: the same with packed rings, whose slots are overwritten while requests are in flight."""
    disk = image(t.tmp / "disk.raw", 32)
    survives(t, f"block,id=d,path={disk},cache=writethrough,packed=on", "vhost-user-blk-pci", "/dev/vda", signal.SIGKILL,
             KILLS, packed="on")


def test_scsi_killed(t):
    """D23: the same of a SCSI host."""
    disk = image(t.tmp / "disk.raw", 32)
    survives(t, f"scsi,id=d,lun0={disk},lun0.cache=writethrough", "vhost-user-scsi-pci", "/dev/sda", signal.SIGKILL,
             KILLS)


def test_block_terminated(t):
    """SIGTERM to the device's process: requests in flight complete, and the guest learns of it, before it ends."""
    disk = image(t.tmp / "disk.raw", 32)
    survives(t, f"block,id=d,path={disk},cache=writethrough", "vhost-user-blk-pci", "/dev/vda", signal.SIGTERM, 3)


STALL = 8  # seconds


@contextlib.contextmanager
def stalled(viodev, guest, mount):
    """Direct writes are in flight, and the image's file system is frozen for STALL seconds."""
    guest.check("(dd if=/dev/zero of=/dev/vda bs=64k count=256 oflag=direct; echo $? >/tmp/written) >/dev/null 2>&1 &")
    subprocess.run(["fsfreeze", "--freeze", mount], check=True)
    thaw = threading.Timer(STALL, subprocess.run, [["fsfreeze", "--unfreeze", mount]])
    thaw.start()
    try:
        yield lambda: sum(queue["inflight"] for queue in status(viodev, "disk")["queues"])
    finally:
        thaw.join()


def test_frozen(t):
    """A VM is paused and reset while its disk stands still: QEMU waits for the rings to stop, the device answers ctl and
    does not fail; the guest sees a slow disk, and no error."""
    with file_system(t) as mount:
        disk = image(mount / "disk.raw", 32)
        with t.serve(f"block,id=disk,path={disk},cache=direct", options=OPTIONS) as viodev:
            pid = status(viodev, "disk")["pid"]
            with t.guest(front_end(viodev, "disk", "vhost-user-blk-pci"), tools=True) as guest:
                with stalled(viodev, guest, mount) as in_flight:
                    wait_for("a write in flight", in_flight)
                    pause = threading.Thread(target=guest.qmp, args=["stop"])
                    pause.start()
                    time.sleep(1)
                    assert pause.is_alive() and in_flight(), "the ring stopped without its requests"
                pause.join()
                assert in_flight() == 0
                guest.qmp("cont")
                guest.check(until("[ -s /tmp/written ]") + " && grep -qx 0 /tmp/written && ! dmesg | grep -i 'i/o error'")
                fio(guest, "paused", "/dev/vda", size="2M")
                with stalled(viodev, guest, mount) as in_flight:
                    wait_for("a write in flight", in_flight)
                    guest.reset()
                fio(guest, "reset", "/dev/vda", size="2M")
            told = status(viodev, "disk")
            assert told["pid"] == pid and told["driver-errors"] == 0 and told["server"]["bad-messages"] == 0, told


def test_net_killed(t):
    """kill -9 of a network card's process: a download continues in the next one, and all its bytes are right."""
    taps()
    data = os.urandom(24 << 20)
    with private_network(), Server(lambda peer: peer.sendall(data)) as server, \
            t.serve("net,id=nic,backend=tap,ifname=tap0,bps=4M", options=OPTIONS) as viodev:
        tap_address("tap0", 1)
        nic = ["-chardev", f"socket,id=c,path={viodev.socket('nic')},reconnect-ms=100",
               "-netdev", "vhost-user,id=n,chardev=c", "-device", "virtio-net-pci,netdev=n,mac=52:54:00:11:22:33"]
        with t.guest(nic, tools=True) as guest:
            guest_address(guest, interface(guest, "52:54:00:11:22:33"), 1)
            guest.check(f"(nc 10.1.0.1 {server.port} </dev/null | sha256sum >/tmp/sum; touch /tmp/done) & sleep 1")
            for _ in range(KILLS):
                pid = status(viodev, "nic")["pid"]
                os.kill(pid, signal.SIGKILL)
                wait_serving(viodev, "nic", pid)
                reaches(guest, "10.1.0.1")
            guest.check(until("[ -e /tmp/done ]", 2 * PATIENCE), 2 * PATIENCE)
            assert guest.check("cat /tmp/sum").split()[0] == hashlib.sha256(data).hexdigest()
        assert status(viodev, "nic")["driver-errors"] == 0
