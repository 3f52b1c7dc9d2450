#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Measures viodev's devices against QEMU's own, as a Linux guest sees them.

Both devices are in one guest at the same time and are measured in turn, round by round, so that a machine that gets
slower or faster meanwhile does so for both. A line a figure:

    bench NAME viodev=VALUE PEER=VALUE unit=UNIT ratio=MEDIAN spread=MIN..MAX

The values are medians; ratio is the median of the rounds' ratios, above 1 where viodev is better.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "guest"))

import vm  # noqa: E402  (found by the line above)

DISK_BYTES = 256 << 20


def figure(name, unit, peer, rounds):
    """Prints the line of a figure; rounds are pairs (viodev, peer), more is better."""
    ratios = sorted(ours / theirs for ours, theirs in rounds)
    print(f"bench {name} viodev={statistics.median(r[0] for r in rounds):.0f} "
          f"{peer}={statistics.median(r[1] for r in rounds):.0f} unit={unit} "
          f"ratio={statistics.median(ratios):.2f} spread={ratios[0]:.2f}..{ratios[-1]:.2f}", flush=True)


def disk_named(guest, serial):
    """The guest's device file of the disk with this serial number."""
    return guest.check(f"for d in /sys/block/vd*; do [ $(cat $d/serial) = {serial} ] && echo /dev/${{d##*/}}; done; true").strip()


def fio(guest, disk, seconds, rw, bs, depth):
    """I/O operations a second of one run."""
    out = guest.check(f"fio --name=bench --filename={disk} --direct=1 --ioengine=libaio --rw={rw} --bs={bs} "
                      f"--iodepth={depth} --time_based --runtime={seconds} --ramp_time=1 --norandommap "
                      f"--output-format=json", timeout=seconds + 60)
    job = json.loads(out[out.index("{"):])["jobs"][0]
    return job["read"]["iops"] + job["write"]["iops"]


def bench_block(options, tmp):
    """4 KiB random and 1 MiB sequential reads, from files in the page cache."""
    images = {}
    for name in ("viodev", "qemu"):
        images[name] = os.path.join(tmp, name + ".img")
        with open(images[name], "wb") as image:
            for _ in range(DISK_BYTES >> 20):
                image.write(os.urandom(1 << 20))

    theirs = ["-blockdev", f"driver=raw,node-name=disk,file.driver=file,file.filename={images['qemu']},file.aio=io_uring",
              "-device", "virtio-blk-pci,drive=disk,serial=qemu"]
    cases = [("block-randread-4k-qd1", "randread", "4k", 1, "iops"), ("block-randread-4k-qd32", "randread", "4k", 32, "iops"),
             ("block-randwrite-4k-qd32", "randwrite", "4k", 32, "iops"), ("block-read-1m", "read", "1m", 4, "MiB/s"),
             ("block-write-1m", "write", "1m", 4, "MiB/s")]
    with vm.Viodev(options.viodev, f"block,id=disk,serial=viodev,path={images['viodev']}") as viodev, \
            vm.Guest(theirs, vm.vfio_user_device(viodev.socket("disk")), kit=options.kit, tools=True) as guest:
        disks = [disk_named(guest, name) for name in ("viodev", "qemu")]
        for name, rw, bs, depth, unit in cases:
            rounds = [tuple(fio(guest, disk, options.seconds, rw, bs, depth) for disk in disks)
                      for _ in range(options.rounds)]
            figure(name, unit, "qemu", rounds)


BENCHES = {"block": bench_block}


def main():
    parser = argparse.ArgumentParser(description="Measures viodev's devices against QEMU's own.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all if none is given")
    parser.add_argument("--viodev", default=str(ROOT / "build" / "viodev"), metavar="BIN", help="default: %(default)s")
    parser.add_argument("--kit", default=vm.default_kit(), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="of each figure; default: %(default)s")
    parser.add_argument("--seconds", type=int, default=4, help="of one run; default: %(default)s")
    options = parser.parse_args()
    for name in options.names:
        if name not in BENCHES:
            parser.error(f"no bench {name}; there are: {', '.join(BENCHES)}")
    with tempfile.TemporaryDirectory(prefix="viodev-bench.") as tmp:
        for name in options.names or BENCHES:
            BENCHES[name](options, tmp)


if __name__ == "__main__":
    main()
