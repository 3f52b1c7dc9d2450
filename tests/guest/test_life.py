# SPDX-License-Identifier: BSD-2-Clause
"""A VM's life: one event after the other in one guest with all seven devices, each of which works after each event."""

import os
import pathlib
import shutil
import signal
import socket
import time

from checks import Health, attach, fio, fio_command, load, opened, status, until
from test_all import MOUNT, devices, typed
from vm import PATIENCE

PORT = "/dev/$(ls /sys/class/virtio-ports | grep p1$)"
STANDSTILL = 10  # seconds that a process is stopped
RESETS = 30


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


def verifying(guest, seconds=60):
    """Starts fio with verification on both disks, and waits until it is at work."""
    for disk in "vda", "sda":
        command = fio_command(disk, f"/dev/{disk}", size="4M", more=f"--time_based --runtime={seconds}")
        guest.check(f"rm -f /tmp/{disk}.status; ({command} >/tmp/{disk}.log 2>&1; echo $? >/tmp/{disk}.status) "
                    "</dev/null >/dev/null 2>&1 &")
        done = f"$(awk '{{ print $5 }}' /sys/block/{disk}/stat)"
        guest.check(f"before={done}; " + until(f"[ {done} -gt $((before + 20)) ]"))


def verified(guest):
    """Lets it end; no byte was wrong and no request failed."""
    guest.check("killall -INT fio; true")
    for disk in "vda", "sda":
        guest.check(until(f"[ -s /tmp/{disk}.status ]"))
        log = guest.check(f"cat /tmp/{disk}.log")
        assert "verify" not in log and "rror" not in log, f"{disk}: {log}"
    errors = guest.run("dmesg | grep -E 'I/O error|Unhandled|timed out'")[1]
    assert not errors, errors


def slept(guest, viodev, t):
    """
    The drivers' freeze and restore alone, then all of S3 but for its last step: functions go to D3 and back, processors
    off and on.

    Linux's 9p driver has no restore, and is ready without a queue after any resume: it is bound again.
    """
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
    place = guest.check("grep -l all-keyboard /sys/class/input/event*/device/name | cut -d/ -f5").strip()
    port = guest.check(f"echo {PORT}").strip()
    busy = f"cat /dev/input/{place}", f"sleep 1000 <{port}", "cat /dev/hwrng", "ping -i 0.01 10.0.2.2"
    for command in busy:
        guest.check(f"({command}) >/dev/null 2>&1 &")
    guest.check(f"{load('/dev/vda', '/dev/sda', rw='randrw')} &")
    guest.check(f"{opened(f'/dev/input/{place}')} && {opened(port)} && "
                + until("[ $(awk '{ print $1 }' /sys/block/vda/stat) -ge 400 ]"))
    for driver in "virtio_blk", "virtio_scsi", "virtio_net", "virtio_console", "virtio_rng", "virtio_input":
        for _ in range(5):
            viodev.ctl("keys", "inject", "key", "KEY_V", "1")
            viodev.ctl("keys", "inject", "key", "KEY_V", "0")
        rebound(guest, driver)
    guest.check("killall fio ping cat sleep; true")
    set_up(guest)


def stood_still(guest, viodev, t):
    """QEMU's stop, its process and each device's are stopped, one after the other, amid verified writes."""
    verifying(guest, 300)
    guest.qmp("stop")
    time.sleep(1)
    guest.qmp("cont")
    pids = [status(viodev, id)["pid"] for id in viodev.sockets]
    for stopped in [guest.process.pid], pids:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(STANDSTILL)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        guest.check("true")
    verified(guest)


def reset(guest, viodev, t):
    """At any moment of a boot: drivers that probe, rings that are half set up, and under load at first."""
    guest.check(f"({load('/dev/vda', '/dev/sda', rw='randrw')}) & "
                + until("[ $(awk '{ print $1 }' /sys/block/vda/stat) -ge 400 ]"))
    guest.qmp("set-action", reboot="reset")
    for i in range(RESETS - 1):
        guest.qmp("system_reset")
        guest.wait_event("RESET")
        time.sleep(0.3 * (i % 10))
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


def test_modern(t):
    """Modern devices: suspends, drivers that go and come, processes that are stopped, kexec, 30 resets."""
    with t.serve(*devices(t, "modern")) as viodev:
        with t.guest(attach(viodev), tools=True, cpus=2, memory="768M", append="no_console_suspend") as guest:
            set_up(guest)
            health = [Health(viodev, id) for id in viodev.sockets]
            for event in slept, unbound, stood_still, kexeced, reset:
                start = time.monotonic()
                event(guest, viodev, t)
                t.say(f"{event.__name__}: {time.monotonic() - start:.1f} s")
                works(guest, viodev, t, event.__name__)
            for one in health:
                one.check()
        for id in viodev.sockets:
            told = status(viodev, id)
            assert told["driver-errors"] == 0 and told["server"]["bad-messages"] == 0, told
