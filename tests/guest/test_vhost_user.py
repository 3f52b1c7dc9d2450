# SPDX-License-Identifier: BSD-2-Clause
"""Devices as vhost-user back-ends, attached to QEMU's front-ends."""

import os
import signal
import time

from checks import digest, fio, fio_command, image, rngtest, status, until, wait_for

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
    """vhost-user-rng: entropy, also after the guest's reboot."""
    with t.serve("rng,id=rng", options=OPTIONS) as viodev:
        with t.guest(front_end(viodev, "rng", "vhost-user-rng-pci"), tools=True) as guest:
            rngtest(guest, 5)
            guest.reset("guest")
            rngtest(guest, 5)
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
                        "sleep 1")
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


def kill_device(viodev, id):
    """kill -9 of the process that serves a device; waits until another does."""
    pid = status(viodev, id)["pid"]
    os.kill(pid, signal.SIGKILL)

    def restarted():
        try:
            return status(viodev, id)["pid"] != pid
        except Exception:  # whichever: there is no process to ask
            return False
    wait_for("another process", restarted, 20)


def survives_kills(t, device, driver, disk, count):
    with t.serve(device, options=OPTIONS) as viodev:
        with t.guest(front_end(viodev, "d", driver, reconnect=100), tools=True) as guest:
            guest.check(until(f"[ -b {disk} ]"))
            load = fio_command("verified", disk, size="16M", bs="4k", depth=16,
                               more=f"--loops=1000 --time_based --runtime={4 * count}")
            guest.check(f"({load} >/tmp/fio 2>&1; echo $? >/tmp/status) & sleep 1")
            for _ in range(count):
                time.sleep(2)
                kill_device(viodev, "d")
            guest.check(until("[ -e /tmp/status ]", 8 * count + 60), 8 * count + 90)
            assert guest.check("cat /tmp/status") == "0\n", guest.run("cat /tmp/fio; dmesg | tail -n 20")[1]
            fio(guest, "after", disk, size="2M")
        told = status(viodev, "d")
        assert told["driver-errors"] == 0, told


def test_block_killed(t):
    """D23: kill -9 of the device under fio with verification: nothing is lost, nothing is seen by the guest."""
    disk = image(t.tmp / "disk.raw", 32)
    survives_kills(t, f"block,id=d,path={disk}", "vhost-user-blk-pci", "/dev/vda", 3)


def test_scsi_killed(t):
    """D23: the same of a SCSI host."""
    disk = image(t.tmp / "disk.raw", 32)
    survives_kills(t, f"scsi,id=d,lun0={disk}", "vhost-user-scsi-pci", "/dev/sda", 3)
