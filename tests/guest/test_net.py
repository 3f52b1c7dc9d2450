# SPDX-License-Identifier: BSD-2-Clause
"""Network cards: addresses by DHCP, whole bytes with every offload, several queues, peers of other kinds, a link
that comes and goes."""

import array
import contextlib
import fcntl
import hashlib
import json
import os
import random
import re
import socket
import struct
import subprocess
import threading
import time

from checks import Health, attach, status, until, wait_for
from hostnet import ip, iperf3_server, need, private_network, tap_address, taps
from vm import PATIENCE, GuestError, Viodev, die_with_parent

MIB = 1 << 20

# What Linux can switch, as `ethtool -K` calls it.
OFFLOADS = ("tx", "rx", "sg", "tso", "gso", "gro", "lro", "tx-udp-segmentation")

DHCP = """
cat >/tmp/dhcp <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/24 dev $interface
ip route add default via $router
echo nameserver $dns >/etc/resolv.conf
END
chmod +x /tmp/dhcp
"""


# --- what the checks share


def guest_address(guest, device, net):
    guest.check(f"ip link set {device} up; ip addr add 10.{net}.0.2/24 dev {device}")


def nic(guest, viodev, id):
    """The guest's name for a device."""
    return interface(guest, status(viodev, id)["mac"])


def host_mtu(device):
    """Of the network namespace, whose interfaces /sys does not show."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = fcntl.ioctl(sock, 0x8921, struct.pack("16s16x", device.encode()))  # SIOCGIFMTU
    return struct.unpack_from("i", request, 16)[0]


def reaches(guest, address, more=""):
    """The host answers. Neither end knows the other one's link and address at once."""
    guest.check(until(f"ping -c 1 -W 5 {more} {address}"))


def interface(guest, mac):
    return guest.check(f"cd /sys/class/net; grep -il {mac} */address | head -n 1").split("/")[0]


class Server:
    """A TCP socket that does one thing with each connection, in a thread."""

    def __init__(self, serve, address="0.0.0.0"):
        self._listener = socket.create_server((address, 0))
        self._serve = serve
        self.port = self._listener.getsockname()[1]
        self.results = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                with peer:
                    peer.settimeout(PATIENCE)
                    self.results.append(self._serve(peer))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def digest_of(sock):
    """What a socket brings until its end."""
    digest = hashlib.sha256()
    while data := sock.recv(MIB):
        digest.update(data)
    return digest.hexdigest()


@contextlib.contextmanager
def name_server(name, server, address):
    """Answers each question for an address with this one."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((server, 53))
    label = b"".join(bytes((len(part),)) + part.encode() for part in name.split("."))

    def answer():
        with contextlib.suppress(OSError):
            while True:
                query, peer = sock.recvfrom(512)
                question = query[12:query.index(0, 12) + 5]
                known = label in question and question[-3] == 1  # type A
                record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(address) if known else b""
                sock.sendto(query[:2] + struct.pack(">5H", 0x8180, 1, known, 0, 0) + question + record, peer)

    threading.Thread(target=answer, daemon=True).start()
    try:
        yield
    finally:
        sock.close()


def serve_with_etc(t, *devices, container=False):
    """With an /etc of its own, t.tmp/etc, which has nothing in it; in a container it may not mount anything."""
    (t.tmp / "etc").mkdir()
    as_in = "setpriv --bounding-set=-sys_admin env" if container else ""
    wrapper = t.tmp / "viodev"
    wrapper.write_text(f"""#!/bin/sh
[ "$1" = serve ] || exec {t.viodev} "$@"
exec unshare --mount sh -c 'mount --bind {t.tmp}/etc /etc && exec {as_in} {t.viodev} "$@"' sh "$@"
""", encoding="ascii")
    wrapper.chmod(0o755)
    return Viodev(wrapper, *devices)


def frames_of(path):
    """The frames of a pcap file, whose form is checked."""
    data = path.read_bytes()
    magic, major, minor, _, _, _, link = struct.unpack_from("<IHHiIII", data)
    assert (magic, major, minor, link) == (0xa1b23c4d, 2, 4, 1), data[:24]
    frames, off = [], 24
    while off < len(data):
        _, nanoseconds, kept, length = struct.unpack_from("<4I", data, off)
        assert nanoseconds < 10**9 and kept <= length <= 65557 and off + 16 + kept <= len(data), (off, kept, length)
        frames.append(data[off + 16:off + 16 + kept])
        off += 16 + kept
    return frames


# --- a network behind a gateway, and a tap, in each mode


def net(t, mode, machine, mtu=1500):
    """What every card must do, in one boot."""
    more = f",mode={mode}" + (f",mtu={mtu}" if mtu != 1500 else "")
    taps()
    pcap = t.tmp / "user.pcap"
    with private_network(), serve_with_etc(
            t, f"net,id=user{more},backend=user,hostfwd=tcp:127.0.0.1:5555-:5201+udp:127.0.0.1:5555-:5201,pcap={pcap}",
            f"net,id=tap{more},backend=tap,ifname=tap0", container=mode == "legacy") as viodev:
        tap_address("tap0", 1)
        with t.guest(attach(viodev), machine=machine, tools=True) as guest:
            for id in "user", "tap":
                assert guest.check(f"cat /sys/class/net/{nic(guest, viodev, id)}/mtu").strip() == str(mtu)
            assert host_mtu("tap0") == mtu
            assert status(viodev, "user")["driver"] == ("legacy" if mode == "legacy" else "modern")
            for check in (addressed, named, forwarded, translated):
                check(t, guest, viodev)
            device = nic(guest, viodev, "tap")
            guest_address(guest, device, 1)
            intact(guest, device)
            unplugged(guest, viodev, device)
            remade(guest, viodev, device, mtu)
        for id in "user", "tap":
            assert status(viodev, id)["driver-errors"] == 0, status(viodev, id)
    assert any(frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[34:38] == b"\0\x44\0\x43"
               for frame in frames_of(pcap)), "no DHCP request in the record"


def addressed(t, guest, viodev):
    """DHCP of the user network."""
    device = nic(guest, viodev, "user")
    guest.check(DHCP + f"ip link set {device} up; udhcpc -i {device} -n -q -f -t 20 -s /tmp/dhcp")
    assert "inet 10.0.2.15/24" in guest.check(f"ip addr show {device}")


def named(t, guest, viodev):
    """DNS goes to the host's name server, which becomes known later and is another one then."""
    sandbox = status(viodev, "user")["sandbox"]
    assert sandbox["seccomp"] and sandbox["empty-root"], sandbox
    assert guest.run("timeout 2 nslookup -type=a viodev.test 10.0.2.3")[0] != 0
    for server, address in ("127.0.0.1", "10.9.8.7"), ("127.0.0.2", "10.9.8.6"):
        with name_server("viodev.test", server, address):
            (t.tmp / "etc" / "new").write_text(f"nameserver {server}\n", encoding="ascii")
            (t.tmp / "etc" / "new").rename(t.tmp / "etc" / "resolv.conf")
            guest.check(until(f"timeout 2 nslookup -type=a viodev.test 10.0.2.3 | grep -q {address}"))


def forwarded(t, guest, viodev):
    """Connections and datagrams to the host's port reach the guest's."""
    need("iperf3")
    guest.check("iperf3 --server --daemon --one-off >/dev/null; " + until("netstat -ltn | grep -q :5201"))
    done = subprocess.run(["iperf3", "--client", "127.0.0.1", "--port=5555", "--udp", "--bitrate=8M", "--bytes=500K"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    received = re.search(r"(\d+)/(\d+) \([\d.e+-]+%\)\s+receiver", done.stdout)
    assert received and int(received[1]) < int(received[2]), done.stdout


def translated(t, guest, viodev):
    """iperf3 of the guest with a server of the host's, both ways."""
    for more in "", "--reverse":
        with iperf3_server():
            guest.check(f"iperf3 --client 10.0.2.2 --bytes=16M {more} >/tmp/iperf3 2>&1 || {{ cat /tmp/iperf3; false; }}")


def intact(guest, device, mib=4, host="10.1.0.1"):
    """As many bytes each way arrive as they were sent, with every offload on, off, and some mixed."""
    data = random.Random(1).randbytes(mib * MIB)
    digest = hashlib.sha256(data).hexdigest()
    everything = " ".join(OFFLOADS)
    mixed = [" ".join(f"{name} {state}" for name, state in zip(everything.split(), states))
             for states in (["on"] * 8, ["off"] * 8, ["on", "off", "on", "off", "on", "off", "off", "off"],
                            ["off", "on", "on", "off", "off", "on", "off", "off"])]
    with Server(digest_of) as sink, Server(lambda sock: sock.sendall(data)) as source:
        get = f"nc {host} {source.port} </dev/null >/tmp/data && sha256sum /tmp/data"
        for switches in mixed:
            guest.run(f"ethtool -K {device} {switches} 2>&1")  # some are fixed
            assert guest.check(get).split()[0] == digest, switches
            guest.check(f"nc {host} {sink.port} </tmp/data")
            wait_for("the bytes", lambda: sink.results)
            assert sink.results.pop() == digest, switches


def unplugged(guest, viodev, device):
    """The link that ctl takes down is the guest's carrier."""
    for state, carrier in ("down", "0"), ("up", "1"):
        viodev.ctl("tap", "link", state)
        guest.check(until(f"[ $(cat /sys/class/net/{device}/carrier) = {carrier} ]"))
        assert status(viodev, "tap")["link"] == state
        if state == "down":
            assert guest.run("ping -c 1 -W 1 10.1.0.1")[0] != 0
    reaches(guest, "10.1.0.1")


def remade(guest, viodev, device, mtu):
    """A tap that is deleted takes the link down; one of the same name is taken up, with its MTU."""
    ip("link del tap0")
    guest.check(until(f"[ $(cat /sys/class/net/{device}/carrier) = 0 ]"))
    assert "tap: net: backend link down: tap deleted" in viodev.messages, viodev.messages
    assert subprocess.run(["ip", "link", "show", "tap0"], capture_output=True, check=False).returncode != 0
    ip("tuntap add dev tap0 mode tap")
    tap_address("tap0", 1)
    guest.check(until(f"[ $(cat /sys/class/net/{device}/carrier) = 1 ]"))
    assert "tap: net: backend link up" in viodev.messages and host_mtu("tap0") == mtu, viodev.messages
    reaches(guest, "10.1.0.1")
    both_ways(guest, "10.1.0.1", 1)  # with the offloads that the driver had


def test_legacy(t):
    """Legacy cards on i440fx: DHCP, DNS, forwarded ports, iperf3, pcap=, whole bytes with all offloads, link state."""
    net(t, "legacy", "pc")


def test_transitional(t):
    """The same of transitional ones with a small MTU, on q35."""
    net(t, "transitional", "q35", 1400)


def test_modern(t):
    """The same of modern ones with a large MTU, on q35."""
    net(t, "modern", "q35", 9000)


def test_low_port(t):
    """hostfwd= of a port that needs rights: refused in a line that says what to do."""
    with private_network():
        try:
            with t.serve("net,backend=user,hostfwd=tcp:127.0.0.1:80-:80"):
                raise AssertionError("it listens there")
        except GuestError as error:
            assert "hostfwd=tcp:127.0.0.1:80-:80: privileged port" in str(error), error


# --- the options of the user network, links and descriptors


def test_user(t):
    """net=, dns=, search=, restrict=, tftp=, one family, ports forwarded at run time; a macvtap link, queues by fd=, AF_XDP."""
    taps()
    folder = t.tmp / "tftp"
    folder.mkdir()
    folder.chmod(0o755)
    t.tmp.chmod(0o755)  # the device is nobody
    data = random.Random(2).randbytes(MIB)
    (folder / "file").write_bytes(data)
    with private_network(), queues_of("tap0", 2) as queues, with_sysfs(
            t, f"net,id=own,backend=user,net=192.168.7.0/24+fd00:7::/64,dns=192.168.7.9,search=viodev.test,tftp={folder}",
            "net,id=alone,backend=user,restrict=on",
            "net,id=six,backend=user,ipv4=off",
            f"net,id=link,backend=tap,ifname={macvtap()}",
            f"net,id=fds,backend=fd,fd={':'.join(map(str, queues))}",
            *af_xdp(t), fds=queues) as viodev, \
            t.guest(attach(viodev), cpus=2, tools=True) as guest:
        own, alone, six = (nic(guest, viodev, id) for id in ("own", "alone", "six"))
        guest.check(DHCP + "echo 'echo $dns $search >>/tmp/names' >>/tmp/dhcp")
        for device in own, alone:
            guest.check(f"ip link set {device} up; udhcpc -i {device} -n -q -f -t 20 -O search -s /tmp/dhcp")
        assert "inet 192.168.7.15/24" in guest.check(f"ip addr show {own}")
        assert guest.check("cat /tmp/names").splitlines() == ["192.168.7.9 viodev.test", ""]
        got = guest.check("cd /tmp && tftp -g -r file 192.168.7.2 >/dev/null 2>&1 && sha256sum file").split()[0]
        assert got == hashlib.sha256(data).hexdigest()
        at_run_time(guest, viodev, own)
        restricted(guest, alone)
        assert guest.run(f"ip link set {six} up; udhcpc -i {six} -n -q -f -t 2 -T 1 -s /tmp/dhcp")[0] != 0
        guest.check(until(f"ip -6 addr show {six} | grep -q fec0:"))
        linked(guest, viodev)
        past_the_stack(t, guest, viodev)
        for id in viodev.sockets:
            assert status(viodev, id)["driver-errors"] == 0, status(viodev, id)


def macvtap():
    """A link on one end of a pair, whose other end is the host, 10.8.0.1."""
    for words in "add lower0 type veth peer name host0", "set lower0 up", "set host0 up":
        ip(f"link {words}")
    remake_macvtap()
    ip("addr add 10.8.0.1/24 dev host0")
    return "link0"


def remake_macvtap():
    ip("link add link lower0 name link0 type macvtap mode bridge")
    ip("link set link0 up")


def xdp_pair(name, net, mtu):
    """An interface for AF_XDP, whose other end is the host, 10.NET.0.1, and computes checksums as a wire's end does."""
    peer = name + "peer"
    for words in f"add {name} mtu {mtu} type veth peer name {peer} mtu {mtu}", f"set {name} up", f"set {peer} up":
        ip(f"link {words}")
    ip(f"addr add 10.{net}.0.1/24 dev {peer}")
    off = array.array("I", (0x17, 0))  # ETHTOOL_STXCSUM
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8946, struct.pack("16sP16x", peer.encode(), off.buffer_info()[0]))  # SIOCETHTOOL


def af_xdp(t):
    """The devices, where the kernel has such sockets, and lets a second process map their rings."""
    if tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (6, 4):
        t.say("no AF_XDP: the host's kernel is older than Linux 6.4")
        return []
    try:
        socket.socket(44, socket.SOCK_RAW).close()  # AF_XDP
    except OSError as error:
        t.say(f"no AF_XDP: {error}")
        return []
    xdp_pair("xdp0", 10, 1500)
    xdp_pair("xdp1", 11, 3000)
    return ["net,id=xdp,backend=af-xdp,ifname=xdp0,xdp-mode=skb",
            "net,id=xdp-mtu,backend=af-xdp,ifname=xdp1,xdp-mode=skb,mtu=3000"]


def past_the_stack(t, guest, viodev):
    """TCP over AF_XDP, also with mtu=, and after the interface was deleted and another of its name was made."""
    if "xdp" not in viodev.sockets:
        return
    device = nic(guest, viodev, "xdp")
    guest_address(guest, device, 10)
    guest_address(guest, nic(guest, viodev, "xdp-mtu"), 11)
    reaches(guest, "10.11.0.1", "-s 2900")
    both_ways(guest, "10.11.0.1", 4)
    reaches(guest, "10.10.0.1")
    both_ways(guest, "10.10.0.1", 4)
    ip("link delete xdp0")
    guest.check(until(f"grep -q 0 /sys/class/net/{device}/carrier"))
    xdp_pair("xdp0", 10, 1500)
    guest.check(until(f"grep -q 1 /sys/class/net/{device}/carrier"))
    reaches(guest, "10.10.0.1")
    both_ways(guest, "10.10.0.1", 4)


@contextlib.contextmanager
def queues_of(name, count):
    """Descriptors of a tap, as whoever starts a device may have opened them."""
    request = struct.pack("16sH22x", name.encode(), 0x5102)  # IFF_TAP, NO_PI, VNET_HDR, MULTI_QUEUE: 0x2 0x1000 0x4000 0x100
    with contextlib.ExitStack() as files:
        queues = [files.enter_context(open("/dev/net/tun", "r+b", buffering=0)).fileno() for _ in range(count)]
        for queue in queues:
            fcntl.ioctl(queue, 0x400454ca, request)  # TUNSETIFF
        tap_address(name, 9)
        yield queues


def with_sysfs(t, *devices, **options):
    """A viodev that sees the network namespace's interfaces in /sys, where it finds a link's device."""
    wrapper = t.tmp / "viodev"
    wrapper.write_text(f"""#!/bin/sh
exec unshare --mount sh -c 'mount -t sysfs none /sys && exec "$@"' - '{os.path.abspath(t.viodev)}' "$@"
""")
    wrapper.chmod(0o755)
    return Viodev(wrapper, *devices, **options)


def linked(guest, viodev):
    """A macvtap link gives its card its address, also to the link that replaces it; each descriptor of fd= is a queue
    pair."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        address = fcntl.ioctl(sock, 0x8927, struct.pack("16s16x", b"link0"))[18:24]  # SIOCGIFHWADDR
    assert status(viodev, "link")["mac"] == address.hex(":")
    device = nic(guest, viodev, "fds")
    guest.check(f"ethtool -L {device} combined 2")
    assert status(viodev, "fds")["pairs"] == 2
    for id, net in ("link", 8), ("fds", 9):
        guest_address(guest, nic(guest, viodev, id), net)
        reaches(guest, f"10.{net}.0.1")
        both_ways(guest, f"10.{net}.0.1", 4)
    device = nic(guest, viodev, "link")
    ip("link delete link0")
    guest.check(until(f"grep -q 0 /sys/class/net/{device}/carrier"))
    remake_macvtap()
    guest.check(until(f"grep -q 1 /sys/class/net/{device}/carrier"))
    reaches(guest, "10.8.0.1")
    both_ways(guest, "10.8.0.1", 4)


def at_run_time(guest, viodev, device):
    """Ports are forwarded when ctl adds them, in both families, and no longer when it removes them."""
    guest.check(f"""ip link set lo up; {until(f"ip -6 addr show {device} | grep -q fd00:7:.*global")}
        while true; do echo hello | nc -l -p 7007 >/dev/null 2>&1 || sleep 0.1; done >/dev/null 2>&1 &
        {until("netstat -ltn | grep -q :7007")}""")
    rules = "tcp:127.0.0.1:7007-:7007", "tcp:[::1]:7007-:7007"
    for rule in rules:
        viodev.ctl("own", "hostfwd", "add", rule)
    assert json.loads(viodev.ctl("own", "hostfwd", "list", "--json"))["reply"]["hostfwd"] == list(rules)
    for rule, host in zip(rules, ("127.0.0.1", "::1")):
        assert wait_for(f"the guest through {host}", lambda: first_bytes(host, 7007)) == b"hello\n"
        viodev.ctl("own", "hostfwd", "remove", rule)
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection((host, 7007), PATIENCE)
            raise AssertionError(f"{host} is still forwarded")


def first_bytes(host, port):
    """What the guest sends at once; nothing when its server is between two connections."""
    with contextlib.suppress(ConnectionResetError), socket.create_connection((host, port), PATIENCE) as sock:
        return sock.recv(100)


def restricted(guest, device):
    """The guest reaches the host by one card, and not by the other."""
    with Server(lambda sock: sock.sendall(b"reached")) as server:
        command = f"nc -w 5 %s {server.port} </dev/null"
        assert "reached" in guest.check(command % "192.168.7.2")
        assert "10.0.2.0/24" in guest.check(f"ip route show dev {device}")
        assert "reached" not in guest.run(command % "10.0.2.2")[1]


# --- what modern cards can


def test_tap(t):
    """Several queues, RSS, USO, address, filters, MTU, coalescing, announcement, a rate, a driver that goes under load."""
    taps()
    with private_network(), t.serve(
            "net,id=many,backend=tap,ifname=tap0,queues=4,mac=52:54:00:11:22:33",
            "net,id=rss,backend=tap,ifname=tap1,queues=4,rss=on",
            "net,id=slow,backend=tap,ifname=tap2,mtu=9000,bps=4M") as viodev:
        for i in range(3):
            tap_address(f"tap{i}", i + 1)
        with t.guest(attach(viodev), cpus=4, tools=True) as guest:
            for i, id in enumerate(("many", "rss", "slow")):
                guest_address(guest, nic(guest, viodev, id), i + 1)
            health = Health(viodev, "many")
            for check in (many_queues, resized_queues, steered, hashed, segmented, coalesced, counted, readdressed, tagged, filtered, announced,
                          limited, rebound, remade_queues):
                check(t, guest, viodev)
            health.check()
        for id in viodev.sockets:
            assert status(viodev, id)["driver-errors"] == 0, status(viodev, id)


def interrupts(guest, device, kind):
    """Of each queue of a kind, "input" or "output"."""
    virtio = guest.check(f"basename $(readlink /sys/class/net/{device}/device)").strip()
    lines = re.findall(rf"^ *\d+:((?: +\d+)+) .*{virtio}-{kind}\.\d+$", guest.check("cat /proc/interrupts"), re.M)
    return [sum(map(int, line.split())) for line in lines]


def resized(guest, viodev, id, device, host):
    """Rings change their size under load."""
    assert "RING_RESET" in status(viodev, id)["features"]
    sizes = lambda: [queue["size"] for queue in status(viodev, id)["queues"]]
    before = sizes()
    with iperf3_server():
        guest.check(f"(iperf3 -c {host} -P 2 --bidir --time=1000 >/dev/null 2>&1 &); sleep 1")
        for rx, tx in (64, 128), (256, 64), (before[0], before[1]):
            frames = status(viodev, id)["rx"]["frames"], status(viodev, id)["tx"]["frames"]
            guest.check(f"ethtool -G {device} rx {rx} tx {tx}")
            assert sizes()[:2] == [rx, tx], sizes()
            wait_for("frames both ways", lambda: status(viodev, id)["rx"]["frames"] > frames[0] + 100 and
                     status(viodev, id)["tx"]["frames"] > frames[1] + 100)
        guest.check("killall -9 iperf3; true")
    reaches(guest, host)
    assert status(viodev, id)["resets"] < 3 and sizes() == before, (sizes(), before)


def both_ways(guest, host, streams=8):
    """Connections side by side."""
    with iperf3_server():
        guest.check(f"iperf3 -c {host} -P {streams} --bytes=8M --bidir >/tmp/iperf3 2>&1 || {{ cat /tmp/iperf3; false; }}")


def many_queues(t, guest, viodev):
    """Four queue pairs move packets; two after ethtool -L."""
    device = nic(guest, viodev, "many")
    for pairs in 4, 2:
        guest.check(f"ethtool -L {device} combined {pairs}")
        assert status(viodev, "many")["pairs"] == pairs
        for kind in "input", "output":
            before = interrupts(guest, device, kind)
            both_ways(guest, "10.1.0.1")
            moved = [now - then for now, then in zip(interrupts(guest, device, kind), before)]
            t.say(f"{pairs} pairs, {kind}: {moved}")
            assert sum(n > 0 for n in moved[:pairs]) > 1 and not any(moved[pairs:]), moved


def received(viodev):
    """Frames, or pieces of them, in each queue of rss. A slow guest has few interrupts, and those of others count more."""
    return [queue["chains"] for queue in status(viodev, "rss")["queues"][:8:2]]


def steered(t, guest, viodev):
    """An indirection table that names one queue sends everything there; the key is the driver's."""
    device = nic(guest, viodev, "rss")
    for table, queues in ("weight 0 0 0 1", [3]), ("equal 4", [0, 1, 2, 3]):
        guest.check(f"ethtool -X {device} {table}; ethtool -x {device}")
        before = received(viodev)
        both_ways(guest, "10.2.0.1")
        moved = [now - then for now, then in zip(received(viodev), before)]
        t.say(f"rss {table}: {moved}")
        # What is no IP has no hash and goes to the first queue.
        assert sum(moved[i] for i in queues) > 0.8 * sum(moved), moved
        assert sum(n > 0 for n in moved) >= min(2, len(queues)), moved
    guest.check(f"ethtool -K {device} rxhash on && ethtool -k {device} | grep -q 'receive-hashing: on'")


def toeplitz(key, data):
    """The hash of RSS: of the key, the 32 bits that begin at each bit that is set in the data."""
    key, room = int.from_bytes(key, "big"), 8 * len(key) - 32
    hash = 0
    for i in range(8 * len(data)):
        if data[i // 8] >> (7 - i % 8) & 1:
            hash ^= key >> (room - i) & 0xffffffff
    return hash


def datagram(to, source, destination, ports):
    """A frame with UDP and no data; addresses as bytes."""
    header = struct.pack(">BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 17, 0) + source + destination
    total = sum(struct.unpack(">10H", header))
    check = ~(total + (total >> 16)) & 0xffff
    return (to + b"\x52\x54\0\0\0\1\x08\0" + header[:10] + struct.pack(">H", check) + header[12:] +
            struct.pack(">HHHH", *ports, 8, 0)).ljust(60, b"\0")


def hashed(t, guest, viodev):
    """Each flow goes to the queue that key and table of `ethtool -x` say, and to no other."""
    device = nic(guest, viodev, "rss")
    told = guest.check(f"ethtool -X {device} weight 1 2 3 4; ethtool -x {device}")
    key = bytes.fromhex(re.search(r"((?:[0-9a-f]{2}:){39}[0-9a-f]{2})", told)[1].replace(":", ""))
    table = [int(queue) for line in re.findall(r"^ +\d+: +(.*)$", told, re.M) for queue in line.split()]
    to = bytes.fromhex(status(viodev, "rss")["mac"].replace(":", ""))
    source, destination = socket.inet_aton("10.2.0.1"), socket.inet_aton("10.2.0.77")  # nobody, who does not answer
    seen = set()
    for port in range(2000, 2016):
        ports = port, 9
        queue = table[toeplitz(key, source + destination + struct.pack(">HH", *ports)) % len(table)]
        before = received(viodev)
        send("tap1", datagram(to, source, destination, ports), 50)
        wait_for(f"50 frames in queue {queue}", lambda: received(viodev)[queue] >= before[queue] + 50)
        moved = [now - then for now, then in zip(received(viodev), before)]
        assert sum(moved) - moved[queue] < 25, (port, queue, moved)
        seen.add(queue)
    assert len(table) == 128 and len(seen) > 1, (table, seen)


def segmented(t, guest, viodev):
    """UDP in one piece (USO), taken from one tap and sent to another by a guest that forwards it."""
    if not {"GUEST_USO4", "HOST_USO"} <= set(status(viodev, "rss")["features"]):
        t.say("no USO: the host's kernel is older than Linux 6.2")
        return
    guest.check("echo 1 >/proc/sys/net/ipv4/ip_forward; ip route add 10.99.0.0/24 via 10.2.0.1")
    ip("route add 10.99.0.0/24 via 10.1.0.2")
    data = random.Random(1).randbytes(20000)
    SOL_PACKET, PACKET_VNET_HDR, SOL_UDP, UDP_SEGMENT = 263, 15, 17, 103
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, \
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as out:
        udp.setsockopt(SOL_UDP, UDP_SEGMENT, 1000)
        out.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        out.bind(("tap1", 0x0800))
        out.settimeout(PATIENCE)

        def forwarded():
            """Kind and size of the pieces, and the data of the next packet."""
            while True:
                packet = out.recv(65536)
                _, kind, _, size = struct.unpack_from("<BBHH", packet)
                if packet[10 + 30:10 + 34] == bytes((10, 99, 0, 9)):
                    return kind, size, packet[10 + 42:]

        device = nic(guest, viodev, "rss")
        guest.check(f"ethtool -K {device} tx-udp-segmentation on")  # it is off at first
        udp.sendto(data, ("10.99.0.9", 9))
        assert (found := forwarded()) == (5, 1000, data), found[:2]  # VIRTIO_NET_HDR_GSO_UDP_L4
        guest.check(f"ethtool -K {device} tx-udp-segmentation off")
        udp.sendto(data, ("10.99.0.9", 9))
        for i in range(20):
            assert (found := forwarded()) == (0, 0, data[1000 * i:1000 * (i + 1)]), (i, found[:2])
    guest.check("echo 0 >/proc/sys/net/ipv4/ip_forward")


def resized_queues(t, guest, viodev):
    """ethtool -G under load: RING_RESET."""
    resized(guest, viodev, "many", nic(guest, viodev, "many"), "10.1.0.1")


def coalesced(t, guest, viodev):
    """Fewer interrupts when the driver asks for it, and it still gets what comes."""
    device = nic(guest, viodev, "slow")
    guest.check(f"ethtool -C {device} rx-usecs 500 rx-frames 32 tx-usecs 500 tx-frames 32 && "
                f"ethtool -c {device} | grep -q 'rx-usecs:.*500'")
    reaches(guest, "10.3.0.1")
    guest.check(f"ethtool -C {device} rx-usecs 0 rx-frames 0 tx-usecs 0 tx-frames 1")
    # One queue's own, VQ_NOTF_COAL.
    many = nic(guest, viodev, "many")
    guest.check(f"ethtool --per-queue {many} queue_mask 1 --coalesce rx-usecs 300 rx-frames 16 && "
                f"ethtool --per-queue {many} queue_mask 1 --show-coalesce | grep -q 'rx-usecs:.*300' && "
                f"ethtool --per-queue {many} queue_mask 2 --show-coalesce | grep -q 'rx-usecs:.*0'")
    reaches(guest, "10.1.0.1")


def counted(t, guest, viodev):
    """ethtool -S of the device's own counters: DEVICE_STATS."""
    device = nic(guest, viodev, "many")

    def counters():
        lines = guest.check(f"ethtool -S {device}").splitlines()
        return dict(re.findall(r"^ *(\w+): (\d+)$", line)[0] for line in lines if "_hw_" in line)

    before, told = counters(), status(viodev, "many")
    guest.check("ping -c 20 -i 0.01 -s 1000 10.1.0.1 >/dev/null")
    after, now = counters(), status(viodev, "many")
    for kind in "rx", "tx":
        for name in "packets", "bytes":
            grown = int(after[f"{kind}_hw_{name}"]) - int(before[f"{kind}_hw_{name}"])
            key = "frames" if name == "packets" else name
            assert (20 if name == "packets" else 20 * 1042) <= grown <= now[kind][key] - told[kind][key], (kind, before, after)


def readdressed(t, guest, viodev):
    """The address given is the card's; one that the driver sets takes its place."""
    device = interface(guest, "52:54:00:11:22:33")
    assert device, guest.check("ip link")
    guest.check(f"ip link set {device} down; ip link set {device} address 52:54:00:44:55:66; ip link set {device} up")
    assert status(viodev, "many")["mac"] == "52:54:00:44:55:66"
    reaches(guest, "10.1.0.1")


def tagged(t, guest, viodev):
    """Frames of a VLAN get through when the driver asked for them, and no others."""
    device = nic(guest, viodev, "many")
    guest.check(f"modprobe 8021q && ip link add link {device} name vlan5 type vlan id 5 && ip link set vlan5 up")
    received = lambda: int(guest.check("cat /sys/class/net/vlan5/statistics/rx_packets"))
    before, filtered = received(), status(viodev, "many")["rx"]["filtered"]
    send("tap0", b"\xff" * 6 + b"\x52\x54\x00\0\0\1" + struct.pack(">HHH", 0x8100, 5, 0x88b5) + bytes(60), 10)
    guest.check(until(f"[ $(cat /sys/class/net/vlan5/statistics/rx_packets) -ge {before + 10} ]"))
    send("tap0", b"\xff" * 6 + b"\x52\x54\x00\0\0\1" + struct.pack(">HHH", 0x8100, 6, 0x88b5) + bytes(60), 10)
    wait_for("10 frames filtered", lambda: status(viodev, "many")["rx"]["filtered"] >= filtered + 10)
    guest.check("ip link del vlan5")


def send(tap, frame, count=1):
    """Frames to the guest."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((tap, 0))
        for _ in range(count):
            sock.send(frame)


def filtered(t, guest, viodev):
    """Others' frames, groups and VLANs that nobody joined are not the driver's, unless it is promiscuous."""
    device = nic(guest, viodev, "many")
    source = b"\x52\x54\x00\0\0\1\x88\xb5" + bytes(60)
    own = bytes.fromhex(status(viodev, "many")["mac"].replace(":", ""))
    foreign = b"\x52\x54\x00\0\0\1\x81\0\0\7\x88\xb5" + bytes(60)
    stranger, group = b"\x52\x54\0\0\0\x77", b"\x01\0\x5e\1\2\3"
    rx = lambda: status(viodev, "many")["rx"]
    commands = lambda: status(viodev, "many")["queues"][-1]["chains"]

    def mode(command):
        """Linux tells the device a moment later, by three commands."""
        before = commands()
        guest.check(command)
        wait_for("the device to be told", lambda: commands() >= before + 3)

    def refused(to, source=source):
        before = rx()["filtered"]
        send("tap0", to + source, 10)
        wait_for("10 frames", lambda: rx()["filtered"] >= before + 10)

    def taken(to, source=source):
        before = rx()["frames"]
        send("tap0", to + source, 10)
        wait_for("10 frames", lambda: rx()["frames"] >= before + 10, 20)  # in longer, others come

    refused(stranger)
    refused(group)
    refused(own, foreign)
    mode(f"ip link set {device} promisc on")
    taken(stranger)
    taken(group)
    taken(own, foreign)
    mode(f"ip link set {device} promisc off")
    mode(f"ifconfig {device} allmulti")
    refused(stranger)
    taken(group)
    mode(f"ifconfig {device} -allmulti")


def announced(t, guest, viodev):
    """The driver makes its addresses known when ctl asks for it, and acknowledges."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as sock:
        sock.bind(("tap1", 0x0806))
        sock.settimeout(PATIENCE)
        viodev.ctl("rss", "announce")
        while True:
            arp = sock.recv(2048)
            if arp[28:32] == arp[38:42] == bytes((10, 2, 0, 2)):
                break


def limited(t, guest, viodev):
    """mtu= is what the guest uses; bps= is kept, each way."""
    device = nic(guest, viodev, "slow")
    assert guest.check(f"cat /sys/class/net/{device}/mtu").strip() == "9000" and host_mtu("tap2") == 9000
    reaches(guest, "10.3.0.1", "-s 8900")
    for more in "", "--reverse":
        with iperf3_server():
            start = time.monotonic()
            # Small socket buffers: what is in them when the last byte is written does not count.
            guest.check(f"iperf3 --client 10.3.0.1 --bytes=8M --window=64K {more} >/tmp/iperf3 2>&1 || "
                        "{ cat /tmp/iperf3; false; }")
            seconds = time.monotonic() - start
            t.say(f"bps=4M{more}: 8 MiB in {seconds:.1f} s")
            assert seconds > 1.8, seconds


def rebound(t, guest, viodev):
    """The driver goes while packets move, and comes back."""
    device = nic(guest, viodev, "rss")
    with iperf3_server():
        guest.check("(iperf3 --client 10.2.0.1 --time=30 --bidir -P 4 >/dev/null 2>&1 &) ; sleep 1")
        before = status(viodev, "rss")["tx"]["frames"]
        virtio = guest.check(f"basename $(readlink /sys/class/net/{device}/device)").strip()
        for _ in range(3):
            guest.check(f"cd /sys/bus/virtio/drivers/virtio_net; echo {virtio} >unbind; echo {virtio} >bind", 60)
            device = nic(guest, viodev, "rss")
            guest_address(guest, device, 2)
            reaches(guest, "10.2.0.1")
        assert status(viodev, "rss")["tx"]["frames"] > before
        guest.check("killall -9 iperf3; true")


def remade_queues(t, guest, viodev):
    """A tap of several queues that is made again gets those that the driver uses."""
    device = nic(guest, viodev, "many")
    ip("link del tap0")
    guest.check(until(f"[ $(cat /sys/class/net/{device}/carrier) = 0 ]"))
    ip("tuntap add dev tap0 mode tap multi_queue")
    tap_address("tap0", 1)
    guest.check(until(f"[ $(cat /sys/class/net/{device}/carrier) = 1 ]"))
    reaches(guest, "10.1.0.1")
    before = interrupts(guest, device, "input")
    both_ways(guest, "10.1.0.1")
    moved = [now - then for now, then in zip(interrupts(guest, device, "input"), before)]
    assert sum(n > 0 for n in moved[:2]) > 0 and not any(moved[2:]), moved


# --- other ends that speak QEMU's protocols


MAC = "52:54:00:00:00:%02x"


def test_peers(t):
    """stream and dgram with QEMU's at the other end, which listens or connects, and with each other."""
    devices = (
        "net,id=v0,backend=stream,addr=127.0.0.1:5001",
        f"net,id=v1,backend=stream,path={t.tmp}/1,listen=on",
        "net,id=v2,backend=stream,addr=127.0.0.1:5002,listen=on",
        f"net,id=v3,backend=dgram,local={t.tmp}/3,remote={t.tmp}/3q",
        f"net,id=v4,backend=dgram,local={t.tmp}/4,remote={t.tmp}/5",
        f"net,id=v5,backend=dgram,local={t.tmp}/5,remote={t.tmp}/4",
        f"net,id=v6,backend=stream,path={t.tmp}/6,listen=on",
        f"net,id=v7,backend=stream,path={t.tmp}/6",
        f"net,id=v8,backend=stream,path={t.tmp}/8,listen=on",
    )
    netdevs = (
        "stream,id=q0,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=5001",
        f"stream,id=q1,server=off,reconnect-ms=100,addr.type=unix,addr.path={t.tmp}/1",
        "stream,id=q2,server=off,reconnect-ms=100,addr.type=inet,addr.host=127.0.0.1,addr.port=5002",
        f"dgram,id=q3,local.type=unix,local.path={t.tmp}/3q,remote.type=unix,remote.path={t.tmp}/3",
    )
    theirs = [["-netdev", netdev, "-device", f"virtio-net-pci,netdev=q{i},mac={MAC % (0x10 + i)}"]
              for i, netdev in enumerate(netdevs)]
    # QEMU comes first: one of ours connects to it.
    with private_network(), t.guest(theirs, machine="pc", boot="paused", tools=True) as guest, \
            t.serve(*(f"{device},mac={MAC % i}{',mtu=1400' if i in (0, 3, 4, 6) else ''}"
                      for i, device in enumerate(devices))) as viodev:
        for id in viodev.sockets:
            guest.qmp("device_add", driver="vfio-user-pci", id=id, socket={"type": "unix", "path": viodev.socket(id)})
        guest.qmp("cont")
        guest.wait_ready()
        for one, other in (0, 0x10), (1, 0x11), (2, 0x12), (3, 0x13), (4, 5), (6, 7):
            connected(guest, interface(guest, MAC % one), interface(guest, MAC % other))
        next_peers(t, guest, viodev)
        for id in viodev.sockets:
            assert status(viodev, id)["driver-errors"] == 0, status(viodev, id)
        guest.kill()
        for i in range(3):
            wait_for(f"the link of v{i} to go down", lambda: status(viodev, f"v{i}")["link"] == "down")


def connected(guest, one, other):
    """Both ways, between two namespaces of the guest."""
    guest.check(f"""
        unshare -n sleep 1000 >/dev/null 2>&1 & there=$!
        until [ "$(readlink /proc/$there/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
        ip link set {other} netns $there
        nsenter -t $there -n sh -c 'ip link set lo up; ip link set {other} up; ip addr add 10.9.0.2/24 dev {other}
            iperf3 --server --daemon --one-off >/dev/null; {until("netstat -ltn | grep -q :5201")}'
        ip link set {one} up; ip addr add 10.9.0.1/24 dev {one}
        {until("ping -c 1 -W 5 10.9.0.2")} && iperf3 --client 10.9.0.2 --bidir --bytes=2M >/tmp/iperf3 2>&1 ||
            {{ ip addr; cat /tmp/iperf3; exit 1; }}
        ip addr flush dev {one}; kill $there""")


def next_peers(t, guest, viodev):
    """The link is up while there is a peer."""
    device = interface(guest, MAC % 8)
    carrier = f"/sys/class/net/{device}/carrier"
    guest.check(f"ip link set {device} up; {until(f'[ $(cat {carrier}) = 0 ]')}")
    assert status(viodev, "v8")["link"] == "down"
    for last in range(2):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(PATIENCE)
            peer.connect(str(t.tmp / "8"))
            guest.check(until(f"[ $(cat {carrier}) = 1 ]"))
            guest.check(f"ip addr add 10.9.{last}.1/24 dev {device}; ping -c 1 -W 1 10.9.{last}.2; true")
            length = struct.unpack(">I", peer.recv(4, socket.MSG_WAITALL))[0]
            assert peer.recv(length, socket.MSG_WAITALL)[6:12] == bytes.fromhex((MAC % 8).replace(":", ""))
        guest.check(until(f"[ $(cat {carrier}) = 0 ]"))


def test_passt(t):
    """stream with passt at the other end: an address by DHCP, TCP to the host and from it, passt restarted under load."""
    need("passt")
    path = t.tmp / "passt"
    with private_network():
        # passt gives the guest the host's own address, and its router's: it wants them to be there.
        for words in ("tuntap add dev up0 mode tap", "addr add 10.77.0.1/24 dev up0", "link set up0 up"):
            ip(words)
        ip("route add default via 10.77.0.254")
        with passt_at(path) as passt, t.serve(f"net,id=nic,backend=stream,path={path}") as viodev, \
                t.guest(attach(viodev), tools=True) as guest:
            device = nic(guest, viodev, "nic")
            behind_passt(guest, device)
            for _ in range(2):
                restarted(guest, viodev, device, passt)
            assert status(viodev, "nic")["driver-errors"] == 0


@contextlib.contextmanager
def passt_at(path):
    """A function that starts it, again if it ran; it runs at first."""
    words = ["passt", "--foreground", "--quiet", "--runas", "0", "--socket", path, "--tcp-ports", "5555:5201"]
    running = []

    def end():
        while running:
            running[0].kill()
            running.pop().wait()

    def start():
        end()
        path.unlink(missing_ok=True)
        running.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        preexec_fn=die_with_parent))
        wait_for("passt", path.exists)

    start.end = end
    try:
        start()
        yield start
    finally:
        end()


def restarted(guest, viodev, device, passt):
    """passt is killed while iperf3 runs: the link is down until another takes its place."""
    with iperf3_server():
        guest.check("(iperf3 --client 10.77.0.254 --time=1000 >/dev/null 2>&1 &); sleep 1")
        before = status(viodev, "nic")["tx"]["frames"]
        wait_for("load", lambda: status(viodev, "nic")["tx"]["frames"] > before + 100)
        passt.end()
        guest.check(until(f"[ $(cat /sys/class/net/{device}/carrier) = 0 ]"))
        passt()
        guest.check(until(f"[ $(cat /sys/class/net/{device}/carrier) = 1 ]"))
        guest.check("killall -9 iperf3")
    for text in "backend link down: peer disconnected: reconnecting", "backend link up":
        assert text in viodev.messages, viodev.messages
    guest.check(f"ip addr flush dev {device}; udhcpc -i {device} -n -q -f -t 20 -s /tmp/dhcp")
    there_and_back(guest)


def there_and_back(guest):
    # Not nc, whose first word is that it has nothing to say: Debian 12's passt forgets such connections.
    for more in "", "--reverse":
        with iperf3_server():
            guest.check(f"iperf3 --client 10.77.0.254 --bytes=4M {more} >/tmp/iperf3 2>&1 || "
                        "{ cat /tmp/iperf3; false; }")


def behind_passt(guest, device):
    guest.check(DHCP + f"ip link set {device} up; udhcpc -i {device} -n -q -f -t 20 -s /tmp/dhcp")
    assert "inet 10.77.0.1/24" in guest.check(f"ip addr show {device}")
    there_and_back(guest)
    guest.check("iperf3 --server --daemon --one-off >/dev/null; " + until("netstat -ltn | grep -q :5201"))
    done = subprocess.run(["iperf3", "--client", "127.0.0.1", "--port=5555", "--bytes=4M"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
