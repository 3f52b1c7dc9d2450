# SPDX-License-Identifier: BSD-2-Clause
"""A vhost-user device killed over and over, while fio verifies what the guest writes."""

import signal
import time

from checks import image
from test_vhost_user import survives

KILLS = 20


def test_killed(t):
    """D23: kill -9 of the device's process, 20 times each: fio finds every byte, the guest sees no error."""
    rows = []
    for type, device, driver, disk in (
            ("block", "block,id=d,path={},cache=writethrough", "vhost-user-blk-pci", "/dev/vda"),
            ("scsi", "scsi,id=d,lun0={},lun0.cache=writethrough", "vhost-user-scsi-pci", "/dev/sda")):
        begin = time.monotonic()
        path = image(t.tmp / f"{type}.raw", 32)
        requests = survives(t, device.format(path), driver, disk, signal.SIGKILL, KILLS)
        rows.append(f"| {type} | {driver} | {len(requests)} | {min(requests)}..{max(requests)} | no error | "
                    f"{time.monotonic() - begin:.0f} |")
    print("\n".join(["", "| device | front-end | kills | requests in flight | fio --verify | seconds |",
                     "|---|---|---|---|---|---|", *rows, ""]), flush=True)
