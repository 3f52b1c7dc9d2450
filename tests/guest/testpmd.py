# SPDX-License-Identifier: BSD-2-Clause
"""DPDK's testpmd, from the kit: virtio-user as a front-end of vhost-user, net_vhost as a back-end. Without huge pages."""

import os
import pty
import re
import select
import signal
import subprocess
import time

from vm import PATIENCE, GuestError, Skip, die_with_parent, tail

MEMORY = 128  # MiB, the packets and all else


class Testpmd:
    """Runs from its creation on, on one processor; use it in a `with` statement.

    device   "net_virtio_user0,path=SOCKET", "eth_vhost0,iface=SOCKET", with more if wanted
    mode     "txonly", "rxonly", "io"
    """

    __test__ = False  # for pytest: no test in spite of its name

    def __init__(self, kit, device, mode, cpu, *options):
        program = os.path.join(kit, "bin", "dpdk-testpmd")
        if not os.path.exists(program):
            raise Skip("the kit has no DPDK")
        self._terminal, theirs = pty.openpty()  # output to a file is buffered
        self.output = ""
        # The main thread sleeps while the other one polls.
        command = [program, "--no-huge", "-m", str(MEMORY), "--no-pci", "--no-telemetry", "--no-shconf",
                   "--lcores", f"0@{cpu},1@{cpu}", "--vdev", device, "--", "--total-num-mbufs=8192", "--auto-start",
                   "--disable-link-check", f"--forward-mode={mode}", *options]
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=die_with_parent)
        os.close(theirs)
        try:
            self._read("Press enter to exit|NIC statistics")
        except BaseException:
            self.__exit__()
            raise

    def await_received(self, count):
        """Waits until so many packets have arrived; needs --stats-period=1."""
        self._read(f"RX-packets: {count} ")

    def stop(self):
        """Packets of its only port: (received, sent)."""
        self.process.send_signal(signal.SIGINT)
        self._read("Bye...")
        self.process.wait(PATIENCE)
        counts = re.search(r"port 0 .*\n *RX-packets: (\d+) .*\n *TX-packets: (\d+) ", self.output)
        if self.process.returncode or not counts:
            raise self._error(f"testpmd ended with status {self.process.returncode}")
        return int(counts[1]), int(counts[2])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)

    def _read(self, pattern):
        """Reads its output up to this pattern."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.output):
            if not select.select([self._terminal], [], [], max(0, deadline - time.monotonic()))[0]:
                raise self._error(f"testpmd does not say {pattern!r}")
            try:
                self.output += os.read(self._terminal, 65536).decode(errors="replace").replace("\r", "")
            except OSError:  # it has ended
                raise self._error("testpmd has ended") from None

    def _error(self, text):
        return GuestError(f"{text}\n--- testpmd's output\n{tail(self.output)}")
