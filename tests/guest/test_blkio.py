# SPDX-License-Identifier: BSD-2-Clause
"""libblkio as a front-end of vhost-user: it adds memory while it runs, asks for replies to all, and never stops."""

import subprocess

import blkio
from checks import image, status
from vm import PATIENCE


def test_check(t):
    """B6: every byte written, flushed and read, zeroes and discards, a new size; a second client on the same server."""
    program = blkio.build(t.kit, t.tmp)
    disk = image(t.tmp / "disk.raw", 24)
    with t.serve(f"block,id=disk,path={disk}", options=("--transport=vhost-user",)) as viodev:
        for mib in 32, 40:
            command = [program, "check", blkio.VHOST_USER, viodev.socket("disk")]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
                assert client.stdout.readline() == f"checked {(mib - 8) << 20}\n"
                viodev.ctl("disk", "resize", f"{mib}M")
                assert client.communicate("\n", timeout=PATIENCE)[0] == f"capacity {mib << 20}\n"
            assert client.returncode == 0
        told = status(viodev, "disk")
        for kind in "read", "write", "flush", "discard", "write-zeroes":
            assert told[kind]["requests"] > 0 and told[kind]["errors"] == 0, (kind, told)
        assert told["driver-errors"] == 0 and told["server"]["bad-messages"] == 0, (told, viodev.messages)
