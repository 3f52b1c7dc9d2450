# SPDX-License-Identifier: BSD-2-Clause
"""Helpers of several test files, about guests and devices."""

import contextlib
import json
import os
import pathlib
import subprocess
import time
import types

from vm import PATIENCE, SANITIZER, Skip, vfio_user_device

MODES = ("legacy", "transitional", "modern")


def attach(viodev, *ids, **properties):
    """QEMU's arguments for these devices, or all of them."""
    return [vfio_user_device(viodev.socket(id), **properties) for id in ids or viodev.sockets]


def status(viodev, id):
    """What `viodev ctl ID status` says."""
    return json.loads(viodev.ctl(id, "status", "--json"))["reply"]


@contextlib.contextmanager
def served_by(t, name, *args):
    """A device that a program of the same build serves: its socket's path, and in the end what the program wrote."""
    program = pathlib.Path(os.path.realpath(t.viodev)).parents[2] / name
    if not program.exists():
        raise Skip(f"{program} was not built")
    device = types.SimpleNamespace(path=t.tmp / f"{program.name}.sock")
    with subprocess.Popen([program, device.path, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield device
        finally:
            process.terminate()
            device.output, device.errors = process.communicate(timeout=PATIENCE)
    assert not SANITIZER.search(device.errors), device.errors


def image(path, mib, pattern=None):
    """A disk image, sparse or filled with a pattern; its path."""
    with open(path, "wb") as file:
        file.truncate(mib << 20)
        if pattern is not None:
            file.write(pattern * ((mib << 20) // len(pattern)))
    return path


def allocated(path):
    """Bytes that the file occupies on the disk."""
    return os.stat(path).st_blocks * 512


def wait_for(what, condition, seconds=PATIENCE):
    """Polls until the condition holds; returns its result."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return value


def fio(guest, name, target, size="8M", rw="randwrite", bs="16k", depth=8, more="", timeout=PATIENCE):
    """Writes at random, reads all of it back and compares checksums."""
    return guest.check(fio_command(name, target, size, rw, bs, depth, more), timeout)


def fio_command(name, target, size="8M", rw="randwrite", bs="16k", depth=8, more=""):
    return (f"fio --name={name} --filename={target} --size={size} --bs={bs} --rw={rw} --ioengine=libaio --direct=1 "
            f"--iodepth={depth} --allow_file_create=0 --verify=crc32c --verify_fatal=1 --randrepeat=0 "
            f"--output-format=terse {more}")


def load(*disks, rw="randread", seconds=60):
    """A shell command that keeps disks busy until they are removed; run it in the background."""
    return (f"fio --name=load --filename={':'.join(disks)} --rw={rw} --size=16M --bs=16k --ioengine=libaio --direct=1 "
            f"--iodepth=16 --time_based --runtime={seconds} --allow_file_create=0 >/dev/null 2>&1")


def until(condition, seconds=PATIENCE - 20):
    """A shell command that waits for the condition, another one."""
    return f"(for i in $(seq {10 * seconds}); do {condition} && exit 0; sleep 0.1; done; exit 1)"


def opened(path):
    """A shell command that waits until somebody has the file open."""
    return until(f"ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q ' {path}$'")


def digest(guest, disk, mib=4):
    """MD5 of the first part of a disk, as the guest reads it."""
    return guest.check(f"set -o pipefail; dd if={disk} bs=1M count={mib} iflag=direct 2>/dev/null | md5sum").split()[0]


def rngtest(guest, blocks=20):
    """FIPS 140-2 on the guest's entropy; one block in 1300 of good random numbers fails."""
    report = guest.run(f"dd if=/dev/hwrng bs=2500 count={blocks + 1} iflag=fullblock 2>/dev/null | "
                       f"rngtest -c {blocks}")[1]
    successes, failures = (int(report.split(f"FIPS 140-2 {what}: ")[1].split()[0]) for what in ("successes", "failures"))
    assert successes + failures == blocks and failures <= 2, report


class Health:
    """A device process must stay the same one, and need no more memory and descriptors than at first."""

    SLACK = 24 << 20  # what the sanitizers' allocator may keep

    def __init__(self, viodev, id):
        self.viodev, self.id = viodev, id
        self.pid = status(viodev, id)["pid"]
        self.descriptors, self.resident = self._descriptors(), self._resident()

    def check(self):
        now = status(self.viodev, self.id)["pid"]
        assert now == self.pid, f"{self.id}: process {self.pid} has died\n{self.viodev.messages}"
        # It may not have seen yet that the client of the line above has disconnected.
        wait_for(f"{self.id}: {self.descriptors} descriptors", lambda: self._descriptors() <= self.descriptors)
        resident = self._resident()
        assert resident <= self.resident + self.SLACK, f"{self.id}: {self.resident} bytes resident, now {resident}"

    def _descriptors(self):
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        except PermissionError:  # a sandboxed process shows them to root alone
            return 0

    def _resident(self):
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            _, resident, shared, *_ = map(int, file.read().split())
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")  # guest memory is shared
