# SPDX-License-Identifier: BSD-2-Clause
"""A VM's life: one event after the other in one guest with all seven devices, each of which works after each event."""

import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import time

from checks import Health, attach, fio, fio_command, load, opened, status, until, wait_for
from test_all import MOUNT, devices, keyboard, typed
from test_lifecycle import wait_serving
from test_vhost_user import OPTIONS
from test_vhost_user_all import front_ends
from vm import PATIENCE

PORT = "/dev/$(ls /sys/class/virtio-ports | grep p1$)"
STANDSTILL = 10  # seconds that a process is stopped
RESETS = 30
RECONNECTED = "disk", "scsi", "net"  # QEMU reconnects to these over vhost-user
DRIVERS = "virtio_blk", "virtio_scsi", "virtio_net", "virtio_console", "virtio_rng", "virtio_input"

# Pages of plugged memory, which alone makes up this zone (memhp_default_state=), and how many of them are in use.
MOVABLE = "awk '/zone +Movable/ { on = 1 } on && /pages free/ { free = $3 } on && /managed/ { print %s; exit }' /proc/zoneinfo"
PLUGGED, USED = MOVABLE % "$2", MOVABLE % "$2 - free"

WAKEUP = "/sys/class/tty/ttyS1/power/wakeup"
SUSPEND = {
    "mem": "echo mem >/sys/power/state",
    # Input for the command service resumes the guest. Its own output would as well, so that stty waits for the end of it.
    "freeze": f"stty raw -echo </dev/ttyS1 && echo enabled >{WAKEUP} && echo freeze >/sys/power/state && "
              f"echo disabled >{WAKEUP}",
}
IDLE = "PM: suspend-to-idle"  # Linux logs it with pm_debug_messages


def set_up(guest):
    """After a boot: an address for the card and a place for the tree, which is not mounted yet."""
    guest.check("ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2 && "
                "mkdir -p /tree && modprobe 9pnet_virtio && "
                "echo 0 >/sys/module/suspend/parameters/pm_test_delay")
    guest.check(until(f"[ -b /dev/vda ] && [ -b /dev/sda ] && [ -e {PORT} ]"))


def works(guest, viodev, t, what):
    """Each of the seven devices carries data."""
    start = time.monotonic()
    guest.check(until("[ -b /dev/vda ] && [ -b /dev/sda ]"))
    for disk in "vda", "sda":
        fio(guest, disk, f"/dev/{disk}", size="1M")
    guest.check("ping -c 2 -i 0.2 -W 60 10.0.2.2 >/dev/null")
    guest.check("head -c 1000 /dev/hwrng | wc -c | grep -qx 1000")
    guest.check(f"{MOUNT} && echo {what} >/tree/word && umount /tree")
    assert (t.tmp / "tree" / "word").read_text() == f"{what}\n"
    with socket.socket(socket.AF_UNIX) as port:
        port.settimeout(PATIENCE)
        port.connect(str(t.tmp / "port"))
        guest.check(f"echo {what} >{PORT}")
        line = port.makefile("rb").readline()
        assert line == f"{what}\n".encode(), line
    typed(guest, viodev)
    t.say(f"{what}: all work, in {time.monotonic() - start:.1f} s")


def verifying(guest):
    """Starts fio with verification on both disks, one run after the other, and waits until it is at work."""
    guest.check("rm -f /tmp/stop")
    for disk in "vda", "sda":
        command = fio_command(disk, f"/dev/{disk}", size="4M")
        guest.check(f"rm -f /tmp/{disk}.status; (result=0; until [ -e /tmp/stop ] || [ $result != 0 ]; do "
                    f"{command} >/tmp/{disk}.log 2>&1; result=$?; done; echo $result >/tmp/{disk}.status) "
                    "</dev/null >/dev/null 2>&1 &")
        done = f"$(awk '{{ print $5 }}' /sys/block/{disk}/stat)"
        guest.check(f"before={done}; " + until(f"[ {done} -gt $((before + 20)) ]"))


def verified(guest):
    """Lets it end; no byte was wrong and no request failed."""
    guest.check("touch /tmp/stop")
    for disk in "vda", "sda":
        guest.check(until(f"[ -s /tmp/{disk}.status ]"))
        assert guest.check(f"cat /tmp/{disk}.status") == "0\n", f"{disk}: {guest.check(f'cat /tmp/{disk}.log')}"
    guest.check("! dmesg | grep -E 'I/O error|Unhandled|timed out'")


def pressed(viodev):
    for value in "1", "0":
        viodev.ctl("keys", "inject", "key", "KEY_V", value)


def busy(guest):
    """Opens the keyboard and a port, and uses the network and entropy."""
    keys, port = keyboard(guest), guest.check(f"echo {PORT}").strip()
    for command in f"cat {keys}", f"sleep 1000 <{port}", "cat /dev/hwrng", "ping -i 0.01 10.0.2.2":
        guest.check(f"({command}) >/dev/null 2>&1 &")
    guest.check(f"{opened(keys)} && {opened(port)}")


def idle(guest):
    guest.check("killall ping cat sleep; true")  # some have lost their device


@contextlib.contextmanager
def asleep(guest, state):
    """Suspends the guest to RAM ("mem") or to idle ("freeze") during the body."""
    entered = guest.console.count(IDLE)
    suspended = {"mem": lambda: guest.qmp("query-status")["status"] == "suspended",
                 "freeze": lambda: guest.console.count(IDLE) > entered}
    resume = {"mem": lambda: guest.qmp("system_wakeup"), "freeze": guest.wake}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        command = pool.submit(guest.check, SUSPEND[state])
        wait_for("the guest to be suspended", lambda: suspended[state]() or command.done())
        assert not command.done(), command.result()
        yield
        resume[state]()
        command.result()


def slept(guest, viodev, t):
    """
    Suspends to RAM and to idle with requests in flight, and presses keys meanwhile. Linux's 9p driver sets up no queue when
    it resumes, so that it is bound again.
    """
    guest.check("echo deep >/sys/power/mem_sleep && echo 8 >/proc/sys/kernel/printk && "
                "echo 1 >/sys/power/pm_debug_messages")
    busy(guest)
    verifying(guest)
    for state in "mem", "freeze":
        with asleep(guest, state):
            if viodev.sockets:  # with QEMU's own keyboard the key would wake the guest
                pressed(viodev)
    guest.check("echo 4 >/proc/sys/kernel/printk")
    verified(guest)
    idle(guest)
    rebound(guest, "9pnet_virtio")


def mounted(guest, viodev, t):
    """
    S3 with a tree of viodev's and one of QEMU's own device mounted. Linux's driver sets up no queue when it resumes, so that
    both hang. Once Linux can do better, both must work.
    """
    guest.check(f"{MOUNT} && mkdir -p /peer && {MOUNT.replace('tree', 'peer')} && "
                "for tree in tree peer; do echo word >/$tree/word || exit; done")
    with asleep(guest, "mem"):
        pass
    guest.check("for tree in tree peer; do (cat /$tree/word >/tmp/$tree) >/dev/null 2>&1 & done; sleep 3")
    ended = [guest.run(f"[ -s /tmp/{tree} ]")[0] for tree in ("tree", "peer")]
    assert ended[0] == ended[1], ended
    guest.reset()
    set_up(guest)


def frozen(guest, viodev, t):
    """The drivers' freeze and restore alone, then all of S3 but for its last step."""
    verifying(guest)
    for test, state in ("devices", "freeze"), ("core", "mem"):
        guest.check(f"echo {test} >/sys/power/pm_test && echo {state} >/sys/power/state && "
                    "echo none >/sys/power/pm_test")
    verified(guest)
    rebound(guest, "9pnet_virtio")


def rebound(guest, driver):
    where = f"/sys/bus/virtio/drivers/{driver}"
    guest.check(f"cd {where} && for d in virtio[0-9]*; do echo $d >unbind && echo $d >bind || exit 1; done")


def unbound(guest, viodev, t):
    """Each driver goes and comes while its device is busy: disks, a port that is open, a flood of keys, pings."""
    busy(guest)
    guest.check(f"{load('/dev/vda', '/dev/sda', rw='randrw')} & "
                + until("[ $(awk '{ print $1 }' /sys/block/vda/stat) -ge 400 ]"))
    for driver in DRIVERS:
        for _ in range(5):
            pressed(viodev)
        rebound(guest, driver)
    guest.check(until("! killall fio 2>/dev/null"))
    idle(guest)
    # A disk that came back while fio still had the old one open has another name.
    for driver in "virtio_blk", "virtio_scsi":
        rebound(guest, driver)
    set_up(guest)
    guest.check("dmesg -c >/dev/null")  # as in drivers_at_once()


@contextlib.contextmanager
def stopped(pids):
    """Stops processes (SIGSTOP) during the body."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def stood_still(guest, viodev, t):
    """QEMU's stop; then SIGSTOP of QEMU and of all devices for 10 s each, alone and together, amid verified writes."""
    verifying(guest)
    guest.qmp("stop")
    time.sleep(1)
    guest.qmp("cont")
    pids = [status(viodev, id)["pid"] for id in viodev.sockets]
    with contextlib.ExitStack() as rest:
        with stopped([guest.process.pid]):
            time.sleep(STANDSTILL / 2)
            rest.enter_context(stopped(pids))
            time.sleep(STANDSTILL / 2)
        time.sleep(STANDSTILL / 2)
    verified(guest)


def nr_regions(viodev, id):
    told = status(viodev, id)["server"]
    return told["dma-regions" if "dma-regions" in told else "memory-regions"]


def memory_plugged(guest, viodev, t):
    """Memory is plugged, holds the buffers of requests, and is unplugged while they run."""
    regions = lambda: {id: nr_regions(viodev, id) for id in viodev.sockets}
    before = regions()
    for _ in range(2):
        guest.qmp("object-add", {"qom-type": "memory-backend-memfd", "id": "more", "size": 128 << 20, "share": True})
        guest.qmp("device_add", driver="pc-dimm", id="dimm", memdev="more")
        guest.check(until(f"[ $({PLUGGED}) -gt 0 ]"))
        assert all(regions()[id] > count for id, count in before.items()), (before, regions())
        verifying(guest)
        guest.check(until(f"[ $({USED}) -gt 64 ]"))  # each fio has as many pages
        guest.qmp("device_del", id="dimm")
        guest.wait_event("DEVICE_DELETED")
        guest.qmp("object-del", id="more")
        wait_for("the device to let go of it", lambda: regions() == before)
        verified(guest)


def amid(pool, pids, function, *arguments):
    """Calls a function while these processes are stopped; they continue a second later."""
    with stopped(pids):
        called = pool.submit(function, *arguments)
        time.sleep(1)
    return called.result()


def drivers_at_once(guest, pool, pids):
    """Drivers are unbound and bound while the devices are stopped, and while QEMU stops and continues."""
    for driver in DRIVERS:
        amid(pool, pids, rebound, guest, driver)
    rebinding = pool.submit(lambda: [rebound(guest, driver) for driver in DRIVERS])
    while not rebinding.done():
        for command in "stop", "cont":
            guest.qmp(command)
            time.sleep(0.1)
    rebinding.result()
    set_up(guest)
    guest.check("dmesg -c >/dev/null")  # Linux was still reading the partition table of a disk that went


def asleep_at_once(guest, viodev, pool, pids):
    """The devices are stopped while the guest suspends and while it resumes; the disks grow in between."""
    verifying(guest)
    with contextlib.ExitStack() as sleep:
        amid(pool, pids, sleep.enter_context, asleep(guest, "mem"))
        viodev.ctl("disk", "resize", "40M")
        viodev.ctl("scsi", "resize", "0", "40M")
        amid(pool, pids, sleep.close)
    verified(guest)
    rebound(guest, "9pnet_virtio")


def at_once(guest, viodev, t):
    """Two events at once, the last one a reset while the devices are stopped."""
    pids = [status(viodev, id)["pid"] for id in viodev.sockets]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        drivers_at_once(guest, pool, pids)
        asleep_at_once(guest, viodev, pool, pids)
        verifying(guest)
        amid(pool, pids, guest.reset)
    set_up(guest)
    sizes = guest.check("cat /sys/block/vda/size /sys/block/sda/size").split()
    assert sizes == [str(40 * 2048)] * 2, sizes  # Linux asks when a driver starts, not when it resumes


def reset(guest, viodev, t):
    """At any moment of a boot: drivers that probe, rings that are half set up, and under load at first."""
    guest.check(f"({load('/dev/vda', '/dev/sda', rw='randrw')}) & "
                + until("[ $(awk '{ print $1 }' /sys/block/vda/stat) -ge 400 ]"))
    guest.qmp("set-action", reboot="reset")
    for i in range(RESETS - 1):
        guest.qmp("system_reset")
        guest.wait_event("RESET")
        time.sleep(0.15 * (i % 10))
    guest.reset()
    set_up(guest)


def kexeced(guest, viodev, t):
    """Another kernel starts from this one, with a tree mounted that it was read from, and disks under load."""
    tree = t.tmp / "tree"
    shutil.copy(viodev.built("tests/guest/kexec"), tree)
    shutil.copy(f"{t.kit}/vmlinuz", tree)
    with open(tree / "initrd", "wb") as joined:
        for part in "initrd.cpio", "tools.cpio":
            joined.write(pathlib.Path(t.kit, part).read_bytes())
    guest.check(MOUNT)
    guest.check(f"({load('/dev/vda', '/dev/sda', rw='randrw')}) & "
                + until("[ $(awk '{ print $1 }' /sys/block/vda/stat) -ge 400 ]"))
    guest.check("(until [ -e /tree/go ]; do sleep 0.1; done; "
                "/tree/kexec /tree/vmlinuz /tree/initrd \"$(cat /proc/cmdline)\") </dev/null >/dev/ttyS0 2>&1 &")
    (tree / "go").touch()
    guest.wait_ready()
    set_up(guest)


def killed(guest, viodev, t):
    """kill -9 of each device that QEMU reconnects to, while the guest is suspended, the process is stopped, drivers are
    unbound and bound, and the guest is reset."""
    def pids():
        return {id: status(viodev, id)["pid"] for id in RECONNECTED}

    def kill(old):
        for pid in old.values():
            os.kill(pid, signal.SIGKILL)
        for id, pid in old.items():
            wait_serving(viodev, id, pid)
            wait_for(f"QEMU to reconnect to {id}", lambda: status(viodev, id)["server"]["attached"])

    verifying(guest)
    with asleep(guest, "mem"):
        kill(pids())
    now = pids()
    with stopped(now.values()):
        time.sleep(1)
        kill(now)
    verified(guest)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        unbinding = pool.submit(lambda: [rebound(guest, driver) for driver in (*DRIVERS, "9pnet_virtio") * 2])
        kill(pids())
        unbinding.result()
        set_up(guest)
        verifying(guest)
        resetting = pool.submit(guest.reset)
        kill(pids())
        resetting.result()
    set_up(guest)


def go_through(guest, viodev, t, events):
    set_up(guest)
    for event in events:
        start = time.monotonic()
        event(guest, viodev, t)
        t.say(f"{event.__name__}: {time.monotonic() - start:.1f} s")
        works(guest, viodev, t, event.__name__)


def machine(mode="modern"):
    """Options of a guest that resumes from S3 and takes plugged memory."""
    return {"machine": "pc" if mode == "legacy" else "q35", "kernel": "vmlinuz", "cpus": 2, "memory": "768M", "tools": True,
            "append": "no_console_suspend memhp_default_state=online_movable"}


def peer(t):
    """Arguments for a 9p device of QEMU's own, and for room to plug memory."""
    (t.tmp / "peer").mkdir()
    return ["-m", "768M,slots=4,maxmem=2G", "-fsdev", f"local,id=peer,path={t.tmp}/peer,security_model=none",
            "-device", "virtio-9p-pci,fsdev=peer,mount_tag=peer"]


def life(t, mode, events, attached=attach, options=()):
    with t.serve(*devices(t, mode), options=options) as viodev:
        with t.guest(peer(t), attached(viodev), **machine(mode)) as guest:
            health = [Health(viodev, id) for id in viodev.sockets]
            go_through(guest, viodev, t, events)
            for one in health:
                one.check()
        for id in viodev.sockets:
            told = status(viodev, id)
            assert told["driver-errors"] == 0 and told["server"]["bad-messages"] == 0, told


# A reset comes between any two that suspend to RAM: with QEMU 11.1 the next one returns at once, whatever the devices. Nor
# does a guest take plugged memory after one.
EVENTS = memory_plugged, mounted, slept, unbound, stood_still, reset, at_once, kexeced


def test_modern(t):
    """Modern devices: suspends, drivers that are bound again, stopped processes, memory that is unplugged, two of these at
    once, kexec, 30 resets."""
    life(t, "modern", EVENTS)


def test_legacy(t):
    """Legacy devices (input: modern): suspends, drivers that are bound again, kexec, 30 resets."""
    life(t, "legacy", (slept, frozen, unbound, kexeced, reset))


def test_vhost_user(t):
    """vhost-user: suspends, drivers that are bound again, stopped processes, memory that is unplugged, 30 resets."""
    life(t, "modern", (memory_plugged, slept, unbound, stood_still, reset), front_ends, OPTIONS)


def test_killed(t):
    """vhost-user: kill -9 of devices amid other events."""
    with t.serve(*devices(t, "modern"), options=OPTIONS) as viodev:
        with t.guest(front_ends(viodev, reconnect=100), **machine()) as guest:
            go_through(guest, viodev, t, [killed])
