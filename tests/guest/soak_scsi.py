# SPDX-License-Identifier: BSD-2-Clause
"""Initiators' suites on viodev's SCSI disk and on QEMU's, side by side in one guest."""

import scsi_suites
from checks import attach, image


def test_initiators(t):
    """iscsi-test-cu and sg3-utils: nothing fails on our disk that QEMU's scsi-hd passes, and less altogether."""
    ours, theirs = (image(t.tmp / f"{name}.img", scsi_suites.DISK_MIB) for name in ("ours", "theirs"))
    peer = ["-blockdev", f"driver=raw,node-name=disk,discard=unmap,file.driver=file,file.filename={theirs},file.discard=unmap,"
            "file.aio=io_uring", "-device", "virtio-scsi-pci,id=host", "-device", "scsi-hd,bus=host.0,drive=disk,serial=theirs"]
    with t.serve(f"scsi,lun0={ours},lun0.serial=ours") as viodev, t.guest(peer, attach(viodev), tools=True) as guest:
        disks = [scsi_suites.generic(guest, vendor) for vendor in ("VIODEV", "QEMU")]
        for title, suite in ("iscsi-test-cu", scsi_suites.iscsi_test), ("sg3-utils", scsi_suites.sg3_utils):
            (mine, texts), (his, _) = (suite(guest, disk) for disk in disks)
            print("\n".join(["", *scsi_suites.table(title, "scsi-hd", mine, his), ""]), flush=True)
            failed, peers_failed = scsi_suites.failures(mine), scsi_suites.failures(his)
            assert failed <= peers_failed and len(failed) < len(peers_failed), "\n".join(texts)
