# SPDX-License-Identifier: BSD-2-Clause
"""Entropy from sources of every kind, as a guest's /dev/hwrng reads it; a device of one's own (examples/hello.c)."""

import os

import vm
from checks import attach, served_by, status, until, wait_for

SOURCE = bytes(range(256)) * 512
NEEDS_RESET = 0x40


def use(guest, number):
    """Makes the guest's /dev/hwrng that of device `number`, in the order of the command line."""
    guest.check(f"echo virtio_rng.{number} >/sys/class/misc/hw_random/rng_current")


def test_sources(t):
    """RNG-01 to RNG-03, F19: a file's bytes in order, a pipe that is dry at times, a limited rate, a file that ends and grows."""
    pattern, short, pipe = t.tmp / "pattern", t.tmp / "short", t.tmp / "pipe"
    pattern.write_bytes(SOURCE)
    short.write_bytes(bytes(100))
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    os.write(writer, b"first " * 100)
    with t.serve(f"rng,id=pattern,source={pattern}", f"rng,id=pipe,source={pipe}", "rng,id=slow,rate=2000",
                 f"rng,id=short,source={short}") as viodev:
        # The kernel draws from whichever source is the current one on its own account, so some bytes are gone.
        with t.guest(attach(viodev)) as guest:
            use(guest, 0)
            text = guest.check("head -c 1000 /dev/hwrng | od -An -v -tu1").split()
            assert len(text) == 1000
            assert all((int(text[i]) + 1) % 256 == int(text[i + 1]) for i in range(63)), text[:70]

            use(guest, 1)
            guest.check("(head -c 2000 /dev/hwrng >/tmp/pipe; touch /tmp/done) >/dev/null 2>&1 &")
            wait_for("the pipe to be dry", lambda: status(viodev, "pipe")["bytes"] == 600)
            assert guest.check("sleep 0.3; ls /tmp").count("done") == 0
            os.write(writer, b"later " * 700)
            guest.check(until("[ -e /tmp/done ]"))
            assert guest.check("grep -c later /tmp/pipe") == "1\n"

            use(guest, 2)
            seconds = float(guest.check("head -c 1000 /dev/hwrng >/dev/null; read a b </proc/uptime; "
                                        "head -c 3000 /dev/hwrng >/dev/null; read c d </proc/uptime; "
                                        "awk \"BEGIN { print $c - $a }\""))
            t.say(f"3000 bytes at 2000 bytes a second: {seconds} s")
            assert seconds >= 0.7, seconds

            # The last, as Linux's driver stalls after a buffer that comes back filled in part.
            guest.check("(echo virtio_rng.3 >/sys/class/misc/hw_random/rng_current; head -c 300 /dev/hwrng) "
                        ">/dev/null 2>&1 &")
            wait_for("the end of the file", lambda: "end of file, retrying" in viodev.messages)
            assert status(viodev, "short")["bytes"] == 100
            with short.open("ab") as file:
                file.write(bytes(4000))
            wait_for("the bytes after it", lambda: status(viodev, "short")["bytes"] > 100)
            told = status(viodev, "short")
            assert not told["device-status"] & NEEDS_RESET and told["driver-errors"] == 0, told
        assert status(viodev, "pattern")["driver-errors"] == 0
    os.close(writer)


def test_example_device(t):
    """examples/hello.c, a device of a hundred lines: its greeting is what the guest reads."""
    with served_by(t, "examples/hello") as device, t.guest(vm.vfio_user_device(device.path)) as guest:
        text = guest.check("head -c 200 /dev/hwrng")
    t.say(repr(text[:80]))
    assert "hello from the device side of virtio\n" in text, repr(text)
