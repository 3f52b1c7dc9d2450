#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Measures viodev's devices against QEMU's own, as a Linux guest sees them.

Both devices are in one guest at the same time and are measured in turn, round by round, so that a machine that gets
slower or faster meanwhile does so for both. A line a figure:

    bench NAME viodev=VALUE PEER=VALUE unit=UNIT ratio=MEDIAN spread=MIN..MAX

The values are medians; ratio is the median of the rounds' ratios, above 1 where viodev is better. What a device costs
has a limit in place of a peer. The exit status is 1 when a ratio is below FLOOR, or a limit is exceeded.
"""

import argparse
import contextlib
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

import blkio  # noqa: E402  (found by the line above)
import hostnet  # noqa: E402
import vm  # noqa: E402
from testpmd import Testpmd  # noqa: E402

DISK_BYTES = 256 << 20
FLOOR = 0.8


class Output:
    """Figures on standard output, as text or JSON; what goes on, and what is too bad, on standard error."""

    def __init__(self):
        self.json = False
        self.failed = False

    def figure(self, name, **fields):
        if self.json:
            print(json.dumps({"name": name, **fields}), flush=True)
            return
        fields["spread"] = "{}..{}".format(*fields["spread"])
        print(f"bench {name}", *(f"{key}={value}" for key, value in fields.items()), flush=True)

    def progress(self, text):
        print(f"bench: {text}", file=sys.stderr, flush=True)

    def fail(self, text):
        self.failed = True
        self.progress(text)


output = Output()


def figure(name, unit, peer, rounds, floor=FLOOR):
    """Prints a figure; rounds are pairs (viodev, peer), more is better."""
    ratios = sorted(ours / theirs for ours, theirs in rounds)
    ratio = statistics.median(ratios)
    values = dict(zip(("viodev", peer), (round(statistics.median(side)) for side in zip(*rounds))))
    output.figure(name, **values, unit=unit, ratio=round(ratio, 2), spread=[round(ratios[0], 2), round(ratios[-1], 2)])
    if ratio < floor:
        output.fail(f"{name}: a ratio of {ratio:.2f} is below {floor}")


def cost(name, unit, limit, values):
    """Prints a figure without a peer; less is better."""
    value = round(statistics.median(values))
    output.figure(name, viodev=value, limit=limit, unit=unit, spread=[round(min(values)), round(max(values))])
    if value > limit:
        output.fail(f"{name}: {value} {unit} is above {limit}")


def in_turn(options, name, measure, sides):
    """Measures viodev's side and its peer's, round by round; each is the first as often as the others."""
    rounds = []
    for i in range(options.rounds):
        output.progress(f"{name}: round {i + 1} of {options.rounds}")
        turns = list(sides)
        turns = turns[i % len(turns):] + turns[:i % len(turns)]
        measured = {side: measure(side) for side in turns}
        rounds.append(tuple(measured[side] for side in sides))
    return rounds


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
            figure(name, unit, "qemu", in_turn(
                options, name, lambda disk: fio(guest, disk, options.seconds, rw, bs, depth), disks))


def blkio_run(program, driver, path, case, seconds, pid=None):
    """Requests a second of one run, and CPU seconds of the server for a million of them."""
    before = blkio.cpu_seconds(pid) if pid else 0
    words = [program, "bench", driver, path, *map(str, case), str(seconds)]
    requests, took = map(float, subprocess.run(words, check=True, capture_output=True, text=True).stdout.split())
    return requests / took, (blkio.cpu_seconds(pid) - before) / requests * 1e6 if pid else 0


def bench_vhost_block(options, tmp):
    """libblkio on one file: by viodev, by qemu-storage-daemon, and by io_uring with no server at all."""
    program, image = blkio.build(options.kit, tmp), os.path.join(tmp, "vhost.img")
    with open(image, "wb") as file:
        for _ in range(DISK_BYTES >> 20):
            file.write(os.urandom(1 << 20))
    theirs = os.path.join(tmp, "qsd.sock")
    cases = [(f"{rw}-4k-qd{depth}", (rw, "rand", 4096, depth)) for rw in ("read", "write") for depth in (1, 32, 128)]
    cases += [(f"{rw}-1m", (rw, "seq", 1 << 20, 4)) for rw in ("read", "write")]
    with vm.Viodev(options.viodev, f"block,id=disk,path={image}", options=("--transport=vhost-user",)) as viodev, \
            blkio.storage_daemon(options.kit, image, theirs) as daemon:
        pid = json.loads(viodev.ctl("disk", "status", "--json"))["reply"]["pid"]
        peers = [(blkio.VHOST_USER, viodev.socket("disk"), pid), (blkio.VHOST_USER, theirs, daemon.pid),
                 ("io_uring", image, None)]
        for name, case in cases:
            def measure(peer):
                with open(image, "rb+") as file:  # all of it in the host's memory, none of it to be written
                    os.fsync(file.fileno())
                    while file.read(1 << 22):
                        pass
                driver, path, pid = peer
                return blkio_run(program, driver, path, case, options.seconds, pid)
            rounds = in_turn(options, f"vhost-{name}", measure, peers)
            ours, peer, direct = zip(*rounds)
            figure(f"vhost-{name}", "iops", "qsd", [(a[0], b[0]) for a, b in zip(ours, peer)])
            figure(f"vhost-{name}-direct", "iops", "io_uring", [(a[0], b[0]) for a, b in zip(ours, direct)], floor=0)
            # The less the better: the ratio is that of what a CPU second does.
            figure(f"vhost-{name}-cpu", "requests/CPU-second", "qsd",
                   [(1e6 / max(a[1], 0.01), 1e6 / max(b[1], 0.01)) for a, b in zip(ours, peer)])


def iperf3(guest, host, seconds, more):
    """MiB a second that arrive at the receiver."""
    with hostnet.iperf3_server():
        out = guest.check(f"iperf3 --client {host} --time={seconds} --omit=1 --json {more}", timeout=seconds + 60)
    return json.loads(out[out.index("{"):])["end"]["sum_received"]["bits_per_second"] / (8 << 20)


def bench_net(options, tmp):
    """TCP to and from the host: over taps with every offload, and through libslirp."""
    theirs = ["-netdev", "tap,id=tap,ifname=qemu,script=no,downscript=no,vhost=off",
              "-device", "virtio-net-pci,netdev=tap,mac=52:54:00:00:00:02",
              "-netdev", "user,id=user,net=10.0.3.0/24", "-device", "virtio-net-pci,netdev=user,mac=52:54:00:00:00:04"]
    addresses = ("10.1.0.2", "10.2.0.2", "10.0.2.15", "10.0.3.15")
    with hostnet.private_network(), \
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
                what = f"net-{name}-{direction}"
                figure(what, "MiB/s", "qemu", in_turn(
                    options, what, lambda host: iperf3(guest, host, options.seconds, more), hosts))


def packets(options, path, size, mode):
    """Packets a second that virtio-user, polling, has sent to a back-end, or got back when that is less."""
    with Testpmd(options.kit, f"net_virtio_user0,path={path}", mode, 1, f"--txpkts={size}") as front_end:
        time.sleep(options.seconds)
        received, sent = front_end.stop()
        return (sent if mode == "txonly" else received) / options.seconds


def bench_net_dpdk(options, tmp):
    """DPDK's virtio-user over vhost-user, to who discards packets and to who sends them back: viodev, and DPDK's own
    back-end, which polls."""
    cases = [("send", "txonly", "null", "rxonly"), ("echo", "flowgen", "echo", "io")]
    for name, mode, backend, theirs in cases:
        for size in 64, 1500:
            rounds = []
            for i in range(options.rounds):
                output.progress(f"net-dpdk-{name}-{size}, round {i + 1} of {options.rounds}")
                with vm.Viodev(options.viodev, f"net,id=nic,backend={backend}", options=["--transport=vhost-user"]) as viodev:
                    ours = packets(options, viodev.socket("nic"), size, mode)
                path = os.path.join(tmp, f"dpdk-{name}-{size}-{i}.sock")
                with Testpmd(options.kit, f"eth_vhost0,iface={path}", theirs, 0):
                    rounds.append((ours, packets(options, path, size, mode)))
            figure(f"net-dpdk-{name}-{size}", "packets/s", "dpdk", rounds, floor=0)


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
            name = f"scsi-randread-4k-qd{depth}"
            figure(name, "iops", "qemu", in_turn(
                options, name, lambda disk: fio(guest, disk, options.seconds, "randread", "4k", depth), disks))


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


def copying(guest, source, target):
    """Starts a copy in the guest: its process id there."""
    return guest.check(f"dd if={source} of={target} bs=64k 2>/dev/null & echo $!").strip()


def end(guest, pid):
    """Ends a copy, and waits until it has let go of its port, which one process has at a time."""
    guest.check(f"kill {pid}; for i in $(seq 50); do ls -l /proc/{pid}/fd 2>/dev/null | grep -q vport || exit 0; sleep 0.1; done; "
                "exit 1")


def from_port(guest, port, sock, seconds):
    """How fast the guest can write, into a port that the host reads."""
    buffer = bytearray(1 << 20)
    pid = copying(guest, "/dev/zero", port)
    sock.settimeout(10)
    sock.recv_into(buffer)
    rate = moved(sock, seconds, lambda sock: sock.recv_into(buffer))
    end(guest, pid)
    # QEMU's port stays blocked for the next one who connects when this one goes before all is read.
    sock.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while sock.recv_into(buffer):
            pass
    return rate


def to_port(guest, port, sock, seconds):
    """How fast the guest can read what the host writes."""
    data = bytes(64 << 10)
    pid = copying(guest, port, "/dev/null")
    rate = moved(sock, seconds, lambda sock: sock.send(data))
    end(guest, pid)
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
            what = f"console-{direction}"
            figure(what, "MiB/s", "qemu", in_turn(
                options, what, lambda name: port_rate(guest, measure, ports[name], paths[name], options.seconds), paths))


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


def start_ms(options, device, tmp):
    """Milliseconds from the command to its last line, by which the device serves."""
    begin = time.monotonic()
    # Nothing but fork and exec: what Python does in a child would count.
    with subprocess.Popen([options.viodev, "serve", f"--dir={tmp}/start", device], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, close_fds=False) as viodev:
        for line in viodev.stdout:
            if line == b"ready\n":
                break
        ms = (time.monotonic() - begin) * 1000
        viodev.terminate()
    return ms


def device_pid(viodev, device):
    return json.loads(viodev.ctl(device, "status", "--json"))["reply"]["pid"]


def woken(pids, seconds):
    """How often each of the processes went to sleep again in that time."""
    before = [wakeups(pid) for pid in pids]
    time.sleep(seconds)
    return [wakeups(pid) - count for pid, count in zip(pids, before)]


def bench_idle(options, tmp):
    """What a device process costs that has nothing to do, and how soon it serves; less is better."""
    disks = [os.path.join(tmp, name) for name in ("block.img", "scsi.img")]
    for disk in disks:
        with open(disk, "wb") as image:
            image.truncate(DISK_BYTES)
    devices = {"block": f"path={disks[0]}", "scsi": f"lun0={disks[1]}", "net": "backend=user",
               "console": f"console=unix:{tmp}/console", "rng": "rate=1M", "9p": f"path={tmp},tag=tmp", "input": "kind=mouse"}
    for name, keys in devices.items():
        output.progress(f"{name}-idle-start")
        cost(f"{name}-idle-start", "ms", 20, [start_ms(options, f"{name},{keys}", tmp) for _ in range(5 * options.rounds)])
    with vm.Viodev(options.viodev, *(f"{name},id=idle-{name},{keys}" for name, keys in devices.items())) as viodev:
        pids = [device_pid(viodev, f"idle-{name}") for name in devices]
        time.sleep(1)
        for name, count, pid in zip(devices, woken(pids, options.seconds), pids):
            cost(f"{name}-idle-wakeups", "times", 0, [count])
            cost(f"{name}-idle-memory", "KiB", 3072, [private_bytes(pid) / 1024])
        output.progress("idle: a guest that has mounted the disk and does nothing")
        with vm.Guest(*map(vm.vfio_user_device, viodev.sockets.values()), kit=options.kit, tools=True) as guest:
            guest.check("mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/vda && mkdir -p /disk && "
                        "mount -t ext4 /dev/vda /disk && sync", timeout=120)
            time.sleep(10)
            for name, count in zip(devices, woken(pids, options.seconds)):
                if name != "rng":  # Linux asks it for more now and then
                    cost(f"{name}-attached-wakeups", "times", 0, [count])


BENCHES = {"idle": bench_idle, "block": bench_block, "vhost-block": bench_vhost_block, "console": bench_console, "net": bench_net,
           "net-dpdk": bench_net_dpdk, "scsi": bench_scsi, "9p": bench_9p}


def main():
    parser = argparse.ArgumentParser(description="Measures viodev's devices against QEMU's own.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all if none is given")
    parser.add_argument("--viodev", default=str(ROOT / "build" / "viodev"), metavar="BIN", help="default: %(default)s")
    parser.add_argument("--kit", default=vm.default_kit(), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="of each figure; default: %(default)s")
    parser.add_argument("--seconds", type=int, default=4, help="of one run; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON, an object a line")
    options = parser.parse_args()
    for name in options.names:
        if name not in BENCHES:
            parser.error(f"no bench {name}; there are: {', '.join(BENCHES)}")
    output.json = options.json
    with tempfile.TemporaryDirectory(prefix="viodev-bench.") as tmp:
        for name in options.names or BENCHES:
            try:
                BENCHES[name](options, tmp)
            except vm.Skip as why:
                output.progress(f"{name} skipped: {why}")
    sys.exit(output.failed)


if __name__ == "__main__":
    main()
