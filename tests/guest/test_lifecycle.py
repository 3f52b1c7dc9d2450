# SPDX-License-Identifier: BSD-2-Clause
"""Ends and new beginnings: of guests, of QEMU, of device processes. What a guest was told is stable is on the disk."""

import concurrent.futures
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import time

import p9_work
import vm
from checks import MODES, attach, fio, image, load, rngtest, status, until, wait_for

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RECORD = 4096

# Writes numbered records, one after the other, and tells the console of each that is stable.
WRITER = """
cat >/tmp/writer <<'END'
n=0
while :; do
    n=$((n + 1))
    printf '%08d' $n >/tmp/record
    dd if=/tmp/record of={disk} bs=4096 seek=$n conv=notrunc,fsync 2>/dev/null && echo "stable $n" >/dev/ttyS0
done
END
sh /tmp/writer >/dev/null 2>&1 &
"""


def stable(guest):
    """How many records the guest was told are stable."""
    numbers = re.findall(r"stable (\d+)\n", guest.console)
    return int(numbers[-1]) if numbers else 0


def check_records(path, count):
    with open(path, "rb") as file:
        for number in range(1, count + 1):
            file.seek(number * RECORD)
            assert file.read(8) == b"%08d" % number, f"record {number} of {count} is not on the disk"


def wait_serving(viodev, id, old_pid):
    """Until another process serves the device; its number."""
    def pid():
        try:
            now = status(viodev, id)["pid"]
        except (vm.GuestError, subprocess.TimeoutExpired):
            return None
        return now if now != old_pid else None
    return wait_for(f"{id} to be started again", pid)


def test_resets(t):
    """system_reset and the guest's own reboot, also under load, in each mode: the disks and the entropy work again."""
    disks = {mode: image(t.tmp / f"{mode}.raw", 16) for mode in MODES}
    with t.serve(*[f"block,id={mode},path={path},mode={mode}" for mode, path in disks.items()],
                 "rng,id=rng") as viodev:
        pids = [status(viodev, id)["pid"] for id in viodev.sockets]
        with t.guest(attach(viodev), tools=True) as guest:
            guest.check("for d in a b c; do echo kept $d | dd of=/dev/vd$d bs=4k seek=1 conv=fsync,notrunc; done")
            for how in "qmp", "guest":
                busy = until("[ $(awk '{ print $1 }' /sys/block/vd$d/stat) -ge 100 ]")
                guest.check(f"{load('/dev/vda', '/dev/vdb', '/dev/vdc')} & for d in a b c; do {busy} || exit; done")
                guest.reset(how)
                t.say(f"again after {guest.boot_seconds:.1f} s ({how})")
                kept = guest.check("for d in a b c; do dd if=/dev/vd$d bs=4k skip=1 count=1 2>&1 | head -n 1; done")
                assert kept == "kept a\nkept b\nkept c\n", kept
            for disk in "vda", "vdb", "vdc":
                fio(guest, disk, f"/dev/{disk}", size="2M")
            rngtest(guest, 5)
        assert pids == [status(viodev, id)["pid"] for id in viodev.sockets], "a device process was started again"


def test_qemu_killed(t):
    """kill -9 of QEMU at a moment of writing: nothing told stable is lost, and the devices serve the next QEMU."""
    disk = image(t.tmp / "disk.raw", 64)
    with t.serve(f"block,id=disk,path={disk}", "rng,id=rng") as viodev:
        pids = [status(viodev, id)["pid"] for id in viodev.sockets]
        with t.guest(attach(viodev)) as guest:
            guest.check(WRITER.format(disk="/dev/vda"))
            wait_for("some records", lambda: stable(guest) >= 30)
            guest.process.kill()
            guest.wait()
            count = stable(guest)
        t.say(f"{count} records")
        check_records(disk, count)
        # Between the two: reset, and nobody's.
        wait_for("the devices to notice", lambda: not any(status(viodev, id)["server"]["attached"]
                                                          for id in viodev.sockets))
        assert status(viodev, "disk")["device-status"] == 0 and status(viodev, "disk")["driver"] == "none"
        assert status(viodev, "disk")["server"]["dma-regions"] == 0
        with t.guest(attach(viodev), machine="pc") as guest:
            assert guest.check(f"dd if=/dev/vda bs=4k skip={count} count=1 2>/dev/null | head -c 8") == f"{count:08d}"
            guest.check("head -c 1000 /dev/hwrng >/dev/null; dd if=/dev/zero of=/dev/vda bs=1M count=4 oflag=direct")
        assert pids == [status(viodev, id)["pid"] for id in viodev.sockets], "a device process was started again"
        assert status(viodev, "disk")["server"]["clients"] == 2


def test_device_killed(t):
    """hostile D23: kill -9 of a device process under a running guest: nothing stable is lost, it is started again.

    The next QEMU attaches; the other device never notices.
    """
    disk = image(t.tmp / "disk.raw", 64)
    with t.serve(f"block,id=disk,path={disk}", "rng,id=rng") as viodev:
        pid, other = status(viodev, "disk")["pid"], status(viodev, "rng")["pid"]
        with t.guest(attach(viodev)) as guest:
            guest.check(WRITER.format(disk="/dev/vda"))
            wait_for("some records", lambda: stable(guest) >= 30)
            os.kill(pid, signal.SIGKILL)
            new = wait_serving(viodev, "disk", pid)
            count = stable(guest)
            t.say(f"{count} records")
            check_records(disk, count)
            try:
                assert guest.check("head -c 100 /dev/hwrng | wc -c") == "100\n"
            except vm.GuestError:
                # QEMU 11.1.3 aborts at times when the server of a device dies.
                if "error_setv: Assertion" not in guest.messages:
                    raise
                t.say("QEMU aborted")
        assert "disk: killed by SIGKILL, restarting" in viodev.messages, viodev.messages
        with t.guest(attach(viodev)) as guest:
            assert guest.check(f"dd if=/dev/vda bs=4k skip={count} count=1 2>/dev/null | head -c 8") == f"{count:08d}"
            guest.check("head -c 1000 /dev/hwrng >/dev/null; dd if=/dev/zero of=/dev/vda bs=1M count=4 oflag=direct")
        assert status(viodev, "disk")["pid"] == new and status(viodev, "rng")["pid"] == other


def test_plugged(t):
    """hostile K13: devices are plugged into a running guest, and out under load, while QEMU or the device's process is
    stopped (not with MSI-X: QEMU dies of it)."""
    disk, second = image(t.tmp / "disk.raw", 16), image(t.tmp / "second.raw", 16)
    with t.serve(f"block,id=disk,path={disk},msix=off", f"block,id=second,path={second}", "rng,id=rng") as viodev:
        with t.guest(machine="pc", tools=True) as guest:
            for amid in paused, standing_still:
                plug(guest, viodev, "disk")
                guest.check(until("load-drivers; [ -b /dev/vda ]"))
                fio(guest, "first", "/dev/vda", size="2M")
                guest.check(f"{load('/dev/vda', rw='randrw')} & "
                            + until("[ $(awk '{ print $1 }' /sys/block/vda/stat) -ge 400 ]"))
                guest.qmp("device_del", id="disk")
                amid(guest, viodev)
                guest.wait_event("DEVICE_DELETED")
                guest.check(until("[ ! -b /dev/vda ]"))
                wait_for("the device to be nobody's", lambda: not status(viodev, "disk")["server"]["attached"])
            plug(guest, viodev, "second")
            plug(guest, viodev, "rng")
            guest.check(until("load-drivers; [ -b /dev/vda ] && grep -q virtio /sys/class/misc/hw_random/rng_current"))
            fio(guest, "second", "/dev/vda", size="2M")
            rngtest(guest, 2)


def paused(guest, viodev):
    guest.qmp("stop")
    time.sleep(1)
    guest.qmp("cont")


def standing_still(guest, viodev):
    pid = status(viodev, "disk")["pid"]
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1)
    os.kill(pid, signal.SIGCONT)


def plug(guest, viodev, id):
    guest.qmp("device_add", {"driver": "vfio-user-pci", "id": id,
                             "socket": {"type": "unix", "path": viodev.socket(id)}})


def test_run(t):
    """`viodev run` with one's own command line: the job in the guest uses the devices; QEMU's status comes back."""
    run_job(t)


def test_run_vhost_user(t):
    """The same over vhost-user."""
    run_job(t, "--transport=vhost-user")


def run_job(t, *options):
    disk = image(t.tmp / "disk.raw", 8)
    archive = t.tmp / "initrd.cpio"
    job = b"head -c 16 /dev/hwrng | wc -c && echo from the job | dd of=/dev/vda conv=fsync\n"
    with open(f"{t.kit}/initrd.cpio", "rb") as file:
        archive.write_bytes(file.read() + cpio("job.sh", job))
    command = [t.viodev, "run", *options, f"block,path={disk}", "rng,mode=modern", "--", f"{t.kit}/bin/qemu-system-x86_64",
               "-accel", "tcg", "-smp", "2", "-m", "256M", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
               "-kernel", f"{t.kit}/vmlinux", "-initrd", archive,
               "-append", f"console=ttyS0 quiet panic=-1 {vm.QUICK_BOOT}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=vm.PATIENCE, check=False)
    assert done.returncode == 0 and "viodev-job=0" in done.stdout, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert not vm.SANITIZER.search(done.stderr), done.stderr
    assert disk.read_bytes().startswith(b"from the job\n")
    command[command.index("-m") + 1] = "nonsense"
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=vm.PATIENCE, check=False)
    assert done.returncode != 0, done.stdout


def test_demo(t):
    """`make demo`: what it promises."""
    done = subprocess.run([ROOT / "scripts" / "demo.sh", t.viodev], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=vm.PATIENCE, check=False, env={**os.environ, "VIODEV_KIT": str(t.kit)})
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    for text in "Virtio block device", "file: OK", "00000010 ", "8+0 records out", "lease of 10.0.2.15 obtained", \
            "written by the host", "a line of the guest", "written by the guest", "viodev-keys", "# wc -c </tmp/events\n    96\n", \
            "It worked":
        assert text in done.stdout, f"{text!r} is missing in\n{done.stdout}"
    for device in "block0", "net0", "console0", "scsi0", "rng0", "9p0", "input0":
        row = re.search(rf"^    {device} +\d+ +(\w+) +yes +\d+ +modern ", done.stdout, re.M)
        assert row and (row[1] == "nobody" or device == "9p0" or os.geteuid() != 0), done.stdout


def cpio(name, data):
    """An archive of one file, to be appended to an initramfs (Linux, driver-api/early-userspace/buffer-format.rst)."""
    def entry(name, mode, data):
        name = name.encode() + b"\0"
        fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
        return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
    archive = entry(name, 0o100755, data) + entry("TRAILER!!!", 0, b"")
    return archive + bytes(-len(archive) % 512)


@contextlib.contextmanager
def file_system(t):
    """A file system of its own on a loop device, mounted; skips where there can be none."""
    disk, mount = image(t.tmp / "fs.raw", 64), t.tmp / "fs"
    mount.mkdir()
    try:
        for command in ["mkfs.ext4", "-q", disk], ["mount", "-o", "loop", disk, mount]:
            subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise vm.Skip(f"no loop mount: {error}") from None
    try:
        yield mount
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", mount], capture_output=True, check=False)
        wait_for("the file system to be let go of",
                 lambda: subprocess.run(["umount", mount], capture_output=True, check=False).returncode == 0)


def test_9p_while_frozen(t):
    """A guest writes and makes files over 9P and hangs, as it would on a disk: others go on, it can be reset, all can end."""
    with file_system(t) as mount:
        (mount / "tree").mkdir()
        other = t.tmp / "other"
        other.mkdir()
        viodev = t.serve(f"9p,id=tree,path={mount}/tree,tag=tree", f"9p,id=other,path={other},tag=other")
        try:
            pid = status(viodev, "tree")["pid"]
            with t.guest(attach(viodev), modules=p9_work.MODULES) as guest:
                def start():
                    p9_work.mount(guest, "tree", "/tree")
                    p9_work.mount(guest, "other", "/other")
                    guest.check("echo old >/tree/old && mkdir -p /tree/dir")
                    subprocess.run(["fsfreeze", "--freeze", mount], check=True)
                    guest.check("for i in $(seq 12); do (echo new >/tree/dir/new$i; mkdir /tree/dir/dir$i) & done >/dev/null 2>&1")
                    wait_for("requests in flight",
                             lambda: any(queue["inflight"] for queue in status(viodev, "tree")["queues"]))

                start()
                guest.check("stat /tree/old && echo other >/other/file && [ $(cat /other/file) = other ]")
                resets = status(viodev, "tree")["resets"]

                def thaw():
                    wait_for("the reset", lambda: status(viodev, "tree")["resets"] > resets)
                    subprocess.run(["fsfreeze", "--unfreeze", mount], check=True)

                with concurrent.futures.ThreadPoolExecutor() as pool:
                    thawed = pool.submit(thaw)
                    guest.reset()
                    thawed.result()
                assert status(viodev, "tree")["pid"] == pid
                start()
                viodev.stop(status=1)
            assert f"tree: process {pid} survives SIGKILL" in viodev.messages, viodev.messages
            subprocess.run(["fsfreeze", "--unfreeze", mount], check=True)
            wait_for("the device's end", lambda: not os.path.exists(f"/proc/{pid}"))
        finally:
            viodev.kill()


def test_stop_while_frozen(t):
    """Direct writes hang in the kernel: ctl is answered, SIGTERM ends viodev, and the device's process goes later."""
    with file_system(t) as mount:
        disk = image(mount / "disk.raw", 16)
        viodev = t.serve(f"block,id=disk,path={disk},cache=direct")
        try:
            pid = status(viodev, "disk")["pid"]
            with t.guest(attach(viodev)) as guest:
                subprocess.run(["fsfreeze", "--freeze", mount], check=True)
                guest.check("dd if=/dev/zero of=/dev/vda bs=64k count=16 oflag=direct >/dev/null 2>&1 &")
                wait_for("a write in flight",
                         lambda: any(queue["inflight"] for queue in status(viodev, "disk")["queues"]))
                viodev.stop(status=1)
            assert "disk: requests still in flight after" in viodev.messages, viodev.messages
            assert f"disk: process {pid} survives SIGKILL" in viodev.messages, viodev.messages
            assert os.path.exists(f"/proc/{pid}"), "nothing hung"
            subprocess.run(["fsfreeze", "--unfreeze", mount], check=True)
            wait_for("the device's end", lambda: not os.path.exists(f"/proc/{pid}"))
        finally:
            viodev.kill()
