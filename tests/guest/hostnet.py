# SPDX-License-Identifier: BSD-2-Clause
"""The host's ends of guests' networks, in a network namespace of their own: nothing of the machine's own network is
touched, and every port and name is free. What is started in it stays in it."""

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile

from checks import wait_for
from vm import Skip, die_with_parent

CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def private_network():
    """A network namespace for all that the test does and starts meanwhile."""
    if os.geteuid() != 0:
        raise Skip("a network namespace needs root")
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net", "rb") as old:
        if libc.unshare(CLONE_NEWNET):
            raise Skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            ip("link set lo up")
            yield
        finally:
            libc.setns(old.fileno(), CLONE_NEWNET)


def ip(words):
    subprocess.run(["ip", *words.split()], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


def need(program):
    if not shutil.which(program):
        raise Skip(f"no {program}")


def taps():
    """Skips where there are none, and the tools to set them up."""
    need("ip")
    try:
        with open("/dev/net/tun", "rb"):
            pass
    except OSError as error:
        raise Skip(f"no taps: {error}") from None


def tap_address(name, net):
    """The host's end: 10.NET.0.1."""
    ip(f"addr add 10.{net}.0.1/24 dev {name}")
    ip(f"link set {name} up")


@contextlib.contextmanager
def iperf3_server():
    """For one client: after each it does not listen for a moment."""
    need("iperf3")
    with tempfile.TemporaryFile() as output, \
            subprocess.Popen(["iperf3", "--server", "--one-off", "--forceflush"], stdin=subprocess.DEVNULL, stdout=output,
                             preexec_fn=die_with_parent) as server:
        try:
            wait_for("iperf3 to listen", lambda: b"listening" in os.pread(output.fileno(), 1000, 0))
            yield
        finally:
            server.kill()
