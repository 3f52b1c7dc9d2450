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
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "guest"))

import hostnet  # noqa: E402  (found by the line above)
import vm  # noqa: E402

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


def fio(guest, disk, seconds, rw, bs, depth, more=""):
    """I/O operations a second of one run."""
    out = guest.check(f"fio --name=bench --filename={disk} --direct=1 --ioengine=libaio --rw={rw} --bs={bs} "
                      f"--iodepth={depth} --time_based --runtime={seconds} --ramp_time=1 --norandommap "
                      f"--output-format=json {more}", timeout=seconds + 60)
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


def iperf3(guest, host, seconds, more):
    """MiB a second that arrive at the receiver."""
    out = guest.check(f"iperf3 --client {host} --time={seconds} --omit=1 --json {more}", timeout=seconds + 60)
    return json.loads(out[out.index("{"):])["end"]["sum_received"]["bits_per_second"] / (8 << 20)


def bench_net(options, tmp):
    """TCP to and from the host: over taps with every offload, and through libslirp."""
    theirs = ["-netdev", "tap,id=tap,ifname=qemu,script=no,downscript=no,vhost=off",
              "-device", "virtio-net-pci,netdev=tap,mac=52:54:00:00:00:02",
              "-netdev", "user,id=user,net=10.0.3.0/24", "-device", "virtio-net-pci,netdev=user,mac=52:54:00:00:00:04"]
    addresses = ("10.1.0.2", "10.2.0.2", "10.0.2.15", "10.0.3.15")
    with hostnet.private_network(), hostnet.iperf3_server(), \
            vm.Viodev(options.viodev, "net,id=tap,backend=tap,ifname=viodev,mac=52:54:00:00:00:01",
                      "net,id=user,backend=user,mac=52:54:00:00:00:03") as viodev, \
            vm.Guest(theirs, *(vm.vfio_user_device(path) for path in viodev.sockets.values()), kit=options.kit,
                     tools=True) as guest:
        for i, tap in enumerate(("viodev", "qemu"), 1):
            hostnet.tap_address(tap, i)
        for i, address in enumerate(addresses, 1):
            guest.check(f"cd /sys/class/net; device=$(dirname $(grep -l 52:54:00:00:00:0{i} */address)); "
                        f"ip link set $device up; ip addr add {address}/24 dev $device")
        for name, hosts in ("tap", ("10.1.0.1", "10.2.0.1")), ("user", ("10.0.2.2", "10.0.3.2")):
            for direction, more in ("send", ""), ("receive", "--reverse"):
                rounds = [tuple(iperf3(guest, host, options.seconds, more) for host in hosts)
                          for _ in range(options.rounds)]
                figure(f"net-{name}-{direction}", "MiB/s", "qemu", rounds)


def scsi_disk(guest, vendor):
    """The guest's device file of the SCSI disk of this vendor, once it is there."""
    return guest.check(f"for i in 1 2 3 4 5 6 7 8 9; do for d in /sys/block/sd*; do grep -qs {vendor} $d/device/vendor && "
                       "echo /dev/${d##*/} && exit 0; done; sleep 1; done; exit 1").strip()


def bench_scsi(options, tmp):
    """4 KiB random reads, from files in the page cache."""
    images = [os.path.join(tmp, name + ".img") for name in ("viodev", "qemu")]
    for path in images:
        with open(path, "wb") as image:
            for _ in range(DISK_BYTES >> 20):
                image.write(os.urandom(1 << 20))

    theirs = ["-blockdev", f"driver=raw,node-name=disk,file.driver=file,file.filename={images[1]},file.aio=io_uring",
              "-device", "virtio-scsi-pci,id=host", "-device", "scsi-hd,bus=host.0,drive=disk"]
    with vm.Viodev(options.viodev, f"scsi,id=host,lun0={images[0]}") as viodev, \
            vm.Guest(theirs, vm.vfio_user_device(viodev.socket("host")), kit=options.kit, tools=True) as guest:
        disks = [scsi_disk(guest, vendor) for vendor in ("VIODEV", "QEMU")]
        for depth in (1, 32):
            rounds = [tuple(fio(guest, disk, options.seconds, "randread", "4k", depth) for disk in disks)
                      for _ in range(options.rounds)]
            figure(f"scsi-randread-4k-qd{depth}", "iops", "qemu", rounds)


def files(guest, directory):
    """What files.c prints, by name: operations a second on small files."""
    out = guest.check(f"mkdir {directory}/small && /files {directory}/small 500 && rmdir {directory}/small", timeout=120)
    return {name: float(rate) for name, rate in map(str.split, out.splitlines())}


def throughput(guest, directory, seconds, rw):
    """MiB a second of one process that reads or writes a file from its begin to its end."""
    return fio(guest, f"{directory}/big", seconds, rw, "1m", 1, "--direct=0 --ioengine=psync --size=64m")


def bench_9p(options, tmp):
    """Small files by operations a second, a big one by MiB a second; neither side caches in the guest."""
    trees = {name: os.path.join(tmp, "9p-" + name) for name in ("viodev", "qemu")}
    for path in trees.values():
        os.mkdir(path)
    theirs = ["-fsdev", f"local,id=tree,path={trees['qemu']},security_model=none",
              "-device", "virtio-9p-pci,fsdev=tree,mount_tag=qemu"]
    with vm.Viodev(options.viodev, f"9p,id=tree,tag=viodev,path={trees['viodev']}") as viodev, \
            vm.Guest(theirs, vm.vfio_user_device(viodev.socket("tree")), kit=options.kit, tools=True,
                     modules=["9p", "9pnet_virtio"]) as guest:
        shutil.copy(viodev.built("tests/guest/files"), trees["viodev"])
        for name in trees:
            guest.check(f"mkdir /{name} && mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288 {name} /{name}")
        guest.check("cp /viodev/files /files")
        rounds = [tuple(files(guest, f"/{name}") for name in trees) for _ in range(options.rounds)]
        for operation in rounds[0][0]:
            figure(f"9p-{operation}", "op/s", "qemu", [tuple(side[operation] for side in pair) for pair in rounds])
        for rw in "write", "read":
            rounds = [tuple(throughput(guest, f"/{name}", options.seconds, rw) for name in trees)
                      for _ in range(options.rounds)]
            figure(f"9p-{rw}-1m", "MiB/s", "qemu", rounds)


def port_named(guest, name):
    """The guest's device file of the port with this name."""
    return "/dev/" + guest.check(f"basename $(dirname $(grep -lx {name} /sys/class/virtio-ports/*/name))").strip()


def moved(sock, seconds, move):
    """MiB a second, by a function that moves some bytes and returns how many."""
    sock.settimeout(10)
    count, begin = 0, time.monotonic()
    while time.monotonic() < begin + seconds:
        count += move(sock)
    return count / (time.monotonic() - begin) / (1 << 20)


def from_port(guest, port, sock, seconds):
    """How fast the guest can write, into a port that the host reads."""
    guest.check(f"timeout {seconds + 1} dd if=/dev/zero of={port} bs=64k 2>/dev/null &")
    buffer = bytearray(1 << 20)
    sock.settimeout(10)
    sock.recv_into(buffer)
    rate = moved(sock, seconds, lambda sock: sock.recv_into(buffer))
    sock.settimeout(2)
    try:
        while sock.recv_into(buffer):
            pass
    except TimeoutError:  # that was the last of it
        pass
    return rate


def to_port(guest, port, sock, seconds):
    """How fast the guest can read what the host writes."""
    guest.check(f"rm -f /tmp/over; (timeout {seconds + 2} dd if={port} of=/dev/null bs=64k 2>/dev/null; touch /tmp/over) &")
    data = bytes(64 << 10)
    rate = moved(sock, seconds, lambda sock: sock.send(data))
    guest.check("until [ -e /tmp/over ]; do sleep 0.1; done")
    return rate


def bench_console(options, tmp):
    """Bytes through a named port, behind which is a UNIX socket."""
    paths = {name: os.path.join(tmp, name + ".port") for name in ("viodev", "qemu")}
    theirs = ["-chardev", f"socket,id=port,path={paths['qemu']},server=on,wait=off", "-device", "virtio-serial-pci",
              "-device", "virtserialport,chardev=port,name=qemu"]
    with vm.Viodev(options.viodev, f"console,id=con,port.viodev=unix:{paths['viodev']}") as viodev, \
            vm.Guest(theirs, vm.vfio_user_device(viodev.socket("con")), kit=options.kit) as guest:
        ports = {name: port_named(guest, name) for name in paths}
        for direction, measure in ("send", from_port), ("receive", to_port):
            rounds = []
            for _ in range(options.rounds):
                rounds.append(tuple(port_rate(guest, measure, ports[name], paths[name], options.seconds) for name in paths))
            figure(f"console-{direction}", "MiB/s", "qemu", rounds)


def port_rate(guest, measure, port, path, seconds):
    """What a measure gives with a connection of its own."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        return measure(guest, port, sock, seconds)


def private_bytes(pid):
    """Memory that is the process's alone."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) << 10 for line in file if line.startswith("Private_"))


def wakeups(pid):
    """How often the process went to sleep so far."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt_switches"))


def idle(options, device):
    """A device nobody uses: milliseconds until it serves, private KiB, times that it woke up in the seconds."""
    begin = time.monotonic()
    with vm.Viodev(options.viodev, device) as viodev:
        start = time.monotonic() - begin
        pid = json.loads(viodev.ctl("idle", "status", "--json"))["reply"]["pid"]
        time.sleep(0.2)
        before = wakeups(pid)
        time.sleep(options.seconds)
        return start * 1000, private_bytes(pid) / 1024, wakeups(pid) - before


def bench_idle(options, tmp):
    """What a device process costs that has nothing to do, and how soon it serves; less is better."""
    disk = os.path.join(tmp, "idle.img")
    with open(disk, "wb") as image:
        image.truncate(DISK_BYTES)
    for device in (f"block,path={disk}", "net,backend=user", f"console,console=unix:{tmp}/console", f"scsi,lun0={disk}", "rng",
                   f"9p,path={tmp}", "input,kind=keyboard"):
        rounds = [idle(options, device + ",id=idle") for _ in range(options.rounds)]
        name = device.split(",")[0]
        for what, unit, limit, values in zip(("start", "memory", "wakeups"), ("ms", "KiB", "times"), (20, 3072, 0),
                                             zip(*rounds)):
            print(f"bench {name}-idle-{what} viodev={statistics.median(values):.0f} limit={limit} unit={unit} "
                  f"spread={min(values):.0f}..{max(values):.0f}", flush=True)


BENCHES = {"idle": bench_idle, "block": bench_block, "console": bench_console, "net": bench_net, "scsi": bench_scsi,
           "9p": bench_9p}


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
            try:
                BENCHES[name](options, tmp)
            except vm.Skip as why:
                print(f"bench {name} skipped: {why}")


if __name__ == "__main__":
    main()
