# SPDX-License-Identifier: BSD-2-Clause
"""A console and named ports: a login on hvc0, bytes both ways, what comes and goes while the guest runs."""

import fcntl
import hashlib
import json
import os
import re
import select
import socket
import subprocess
import termios
import time

import vm
from checks import Health, attach, served_by, status, until, wait_for
from vm import PATIENCE, QUICK_BOOT, SANITIZER

MIB = 1 << 20
AGENT = "org.qemu.guest_agent.0"

NAMES = "cat /sys/class/virtio-ports/*/name 2>/dev/null"
LOGIN = ("sed -i s/:x:/::/ /etc/passwd; setsid getty -l /usr/lib/busybox/login 0 hvc0 vt100 </dev/null >/dev/null 2>&1 & "
         "echo $! >/tmp/login")


def link(guest, count):
    """Links to the ports by name, as udev makes them, when so many have theirs: a driver learns it after the port."""
    guest.check(until(f"[ $({NAMES} | wc -w) = {count} ]") + """ || exit
        rm -rf /dev/virtio-ports; mkdir /dev/virtio-ports
        for port in /sys/class/virtio-ports/*; do
            [ ! -s $port/name ] || ln -s /dev/${port##*/} /dev/virtio-ports/$(cat $port/name)
        done""")


class Line:
    """The host's end of a channel."""

    def __init__(self, path):
        """Of a socket that listens or a terminal, by its path; or a socket, or a descriptor."""
        self.text = b""
        if isinstance(path, int):
            self.fd = path
        elif isinstance(path, socket.socket):
            self.fd = path.detach()
        elif os.path.realpath(path).startswith("/dev/pts/"):
            self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        else:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(path))
            self.fd = sock.detach()

    def send(self, text):
        """Waits while there is no room."""
        data = text.encode() if isinstance(text, str) else text
        while data:
            data = data[os.write(self.fd, data):]

    def fill(self, data):
        """Sends until there is no room any more; how many bytes."""
        sent = 0
        os.set_blocking(self.fd, False)
        while sent < len(data) and select.select([], [self.fd], [], 0.5)[1]:
            sent += os.write(self.fd, data[sent:])
        os.set_blocking(self.fd, True)
        return sent

    def read(self, seconds=PATIENCE):
        """Some bytes: none at the end."""
        assert select.select([self.fd], [], [], seconds)[0], f"nothing came for {seconds} s after {self.text[-500:]!r}"
        return os.read(self.fd, 65536)

    def expect(self, pattern):
        """Reads until the pattern has come; its match. The rest is kept."""
        while not (found := re.search(pattern.encode(), self.text)):
            data = self.read()
            assert data, f"the end came before {pattern!r}: {self.text[-500:]!r}"
            self.text += data
        self.text = self.text[found.end():]
        return found

    def silent(self, seconds=0.3):
        """Nothing comes."""
        return not self.text and not select.select([self.fd], [], [], seconds)[0]

    def close(self):
        os.close(self.fd)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Host:
    """A device with a console and three ports whose other ends are sockets in a folder."""

    def __init__(self, t, mode):
        self.dir = t.tmp
        self.options = (f"console,id=con,mode={mode},ports=5,console=unix:{t.tmp}/console,port.one=unix:{t.tmp}/one,"
                        f"port.two=unix:{t.tmp}/two,port.{AGENT}=unix:{t.tmp}/agent")

    def line(self, name):
        return Line(self.dir / name)

    def met(self, guest, name):
        """A line that the guest knows of: Linux lets writers wait for that, readers find the end."""
        line = self.line(name)
        guest.check(f"echo hello >/dev/virtio-ports/{name}")
        line.expect("^hello\n")
        return line


def port(viodev, name):
    """What the device says of a port."""
    return next(port for port in status(viodev, "con")["ports"] if port["name"] == name)


def bound(t, mode, machine):
    """All that a guest does with the device, in one boot."""
    host = Host(t, mode)
    with t.serve(host.options) as viodev, host.line("console") as console:
        with t.guest(attach(viodev), machine=machine, tools=True, append="console=hvc0 loglevel=7") as guest:
            health = Health(viodev, "con")
            console.expect("Freeing unused kernel image")
            guest.check("dmesg -n 1")  # what else the kernel says must not get between others' lines
            link(guest, 3)
            for check in (named, login, resized, agent, to_guest, to_host, slow_console, reconnected, unread, suspended,
                          plugged, rebound, emergency):
                start = time.monotonic()
                check(guest, viodev, host, console)
                t.say(f"{check.__name__}: {time.monotonic() - start:.1f} s")
            health.check()
        told = status(viodev, "con")
        assert told["driver-errors"] == 0 and not any(port["errors"] for port in told["ports"]), told
        wait_for("the ports to be nobody's", lambda: not any(port["guest-open"] for port in status(viodev, "con")["ports"]
                                                             if "guest-open" in port))
    assert os.listdir(t.tmp) == ["new"], "left behind is what ctl made, and nothing else"


def named(guest, viodev, host, console):
    """CON-06: the ports have the names that they were given, and port 0 is a console."""
    assert guest.check("cat /sys/class/virtio-ports/*/name").split() == ["one", "two", AGENT]
    assert "hvc0" in guest.check("cat /proc/consoles")
    assert port(viodev, "console")["guest-open"] and not port(viodev, "one")["guest-open"]


def login(guest, viodev, host, console):
    """Somebody logs in."""
    guest.check(LOGIN)
    console.expect("login: ")
    console.send("root\r")
    console.expect("[#$] ")
    console.send("tty; echo $((6 * 7))\r")
    console.expect(r"/dev/hvc0\r+\n42\r+\n")


def suspended(guest, viodev, host, console):
    """After a suspend the console and the ports work as before, also when more has been said than a queue holds."""
    with host.met(guest, "one") as one, host.line("two") as two:
        guest.check("(exec 3<>/dev/virtio-ports/two; while read line <&3; do echo got $line >&3; done) >/dev/null 2>&1 &")
        wait_for("the guest to have it open", lambda: port(viodev, "two")["guest-open"])
        resets = status(viodev, "con")["resets"]
        guest.check("echo 0 >/sys/module/suspend/parameters/pm_test_delay; echo devices >/sys/power/pm_test; "
                    "echo freeze >/sys/power/state")
        assert status(viodev, "con")["resets"] > resets, "the device was not reset"
        two.send("open before\n")
        two.expect("^got open before\n")
        guest.check("head -n 1 0<>/dev/virtio-ports/one >&0 2>/dev/null &")
        one.send("opened after\n")
        one.expect("^opened after\n")
        console.text = b""
        console.send("echo re''sumed\r")
        console.expect(r"resumed\r*\n")
    guest.check(until("! pidof head"))


def resized(guest, viodev, host, console):
    """CON-08, TRAP-14: the terminal in the guest is as wide and high as ctl says."""
    for cols, rows in (132, 43), (80, 25):
        viodev.ctl("con", "resize", cols, rows)
        guest.check(until(f"[ \"$(stty -F /dev/hvc0 size)\" = '{rows} {cols}' ]"))
    console.send("stty size\r")
    console.expect(r"25 80\r+\n")


def agent(guest, viodev, host, console):
    """qemu-guest-agent answers."""
    with host.line("agent") as line:
        guest.check(f"qemu-ga -m virtio-serial -p /dev/virtio-ports/{AGENT} -t /run -f /run/agent.pid -d")
        line.send('{"execute": "guest-sync", "arguments": {"id": 4711}}\n')
        line.expect(r'\{"return": 4711\}\n')
        line.send('{"execute": "guest-info"}\n')
        assert json.loads(line.expect(r"\{.*\}\n").group())["return"]["version"]
    # The next one is understood as well.
    with host.line("agent") as line:
        line.send('{"execute": "guest-sync", "arguments": {"id": 4712}}\n')
        line.expect(r'\{"return": 4712\}\n')
    guest.check("kill $(cat /run/agent.pid)")


def to_guest(guest, viodev, host, console):
    """CON-13: the guest stops to read for a while; the host waits, and no byte is lost."""
    data = os.urandom(8 * MIB)
    with host.met(guest, "one") as line:
        guest.check("(await() { until [ -e /tmp/$1 ]; do sleep 0.1; done; }; await go1; dd bs=64k count=16 iflag=fullblock; "
                    "await go2; exec head -c 7340032) </dev/virtio-ports/one >/tmp/data 2>/dev/null &")
        sent = 0
        for go in "go1", "go2":
            sent += line.fill(data[sent:])
            assert sent < len(data), "the host was not held up"
            guest.check(f"touch /tmp/{go}")
        line.send(data[sent:])
        guest.check(until(f"[ $(wc -c </tmp/data) = {8 * MIB} ]"))
    assert guest.check("md5sum </tmp/data").split()[0] == hashlib.md5(data).hexdigest()


def to_host(guest, viodev, host, console):
    """CON-11: the host stops to read for a while; the guest waits, and no byte is lost."""
    total = 24 * MIB  # the guest's ring holds 8
    with host.line("one") as line:
        guest.check("cp /tmp/data /tmp/all; cat /tmp/data /tmp/data >>/tmp/all; rm -f /tmp/done; "
                    "(cat /tmp/all >/dev/virtio-ports/one; touch /tmp/done) >/dev/null 2>&1 &")
        got = hashlib.md5()
        count = 0
        for stop in 4 * MIB, total:
            time.sleep(0.7)
            assert guest.run("[ -e /tmp/done ]")[0] != 0, "the guest was not held up"
            while count < stop:
                data = line.read()
                got.update(data)
                count += len(data)
        guest.check(until("[ -e /tmp/done ]"))
        assert count == total and line.silent()
        assert got.hexdigest() == guest.check("md5sum </tmp/all").split()[0]


def slow_console(guest, viodev, host, console):
    """Nobody reads the console for a while: Linux waits, and no character is lost."""
    before = port(viodev, "console")["from-guest"]
    console.send("stty -opost; seq 5000; echo en''d\r")
    wait_for("the first of it", lambda: port(viodev, "console")["from-guest"] > before + 300)
    time.sleep(1)
    assert port(viodev, "console")["from-guest"] < before + 20000, "the guest was not held up"
    numbers = console.expect("(?s)(1\n2\n.*?)\r?\nend").group(1)
    assert numbers.split() == [b"%d" % i for i in range(1, 5001)]
    console.send("stty opost\r")


def reconnected(guest, viodev, host, console):
    """CON-07: the guest sees the host's end come and go; what was for one peer is not for the next."""
    guest.check("exec 3<>/dev/virtio-ports/two && [ -z \"$(cat <&3)\" ]")  # no peer: end of file at once
    with host.met(guest, "two") as line:
        guest.check("((echo first; head -c 6; cat) </dev/virtio-ports/two; echo at the end) >/tmp/two 2>/dev/null &")
        line.send("hello\n")
        guest.check(until("grep -q hello /tmp/two"))
    guest.check(until("grep -q 'at the end' /tmp/two"))
    # One that does not read leaves a full ring, of which the next must get nothing.
    with host.met(guest, "two"):
        guest.check("dd if=/tmp/all of=/dev/virtio-ports/two bs=64k 2>/dev/null & echo $! >/tmp/writer")
        guest.check(until(f"[ $(sed -n 's/^wchar: //p' /proc/$(cat /tmp/writer)/io) -gt {4 * MIB} ]"))
    guest.check("kill $(cat /tmp/writer); " + until("! kill -0 $(cat /tmp/writer) 2>/dev/null"))
    lost = lambda: port(viodev, "two")["lost"]
    wait_for("the ring to be empty", lambda: lost() == lost() > MIB)
    with host.line("two") as line:
        assert line.silent(0.5), line.read()
        guest.check("echo fresh >/dev/virtio-ports/two")
        line.expect("^fresh\n")


def unread(guest, viodev, host, console):
    """Peers that the guest does not read come and go: the next one is served at once."""
    for number in range(150):  # more than wait in the kernel
        with host.line("two") as line:
            line.send(f"peer {number}\n")
    wait_for("the last one to be gone", lambda: not port(viodev, "two")["host-open"])
    with host.line("two") as line:
        guest.check("echo output >/dev/virtio-ports/two")
        line.expect("^output\n")
        assert port(viodev, "two")["host-open"]


def plugged(guest, viodev, host, console):
    """CON-03, CON-04: a port goes while it is being used, and comes back."""
    with host.met(guest, "two") as line:
        guest.check("rm -f /tmp/gone; (cat /dev/virtio-ports/two; touch /tmp/gone) >/dev/null 2>&1 &")
        wait_for("the guest to have it open", lambda: port(viodev, "two")["guest-open"])
        viodev.ctl("con", "port", "remove", "two")
        guest.check(until("[ -e /tmp/gone ]"))
        guest.check(until("! grep -q two /sys/class/virtio-ports/*/name"))
        assert not port(viodev, "two")["plugged"]
        viodev.ctl("con", "port", "add", "two")
        guest.check(until("grep -q two /sys/class/virtio-ports/*/name"))
        link(guest, 3)
        guest.check("echo again >/dev/virtio-ports/two")
        line.expect("^again\n")
    viodev.ctl("con", "port", "add", "new", f"unix:{host.dir}/new")
    link(guest, 4)
    with host.met(guest, "new") as line:
        guest.check("head -n 1 0<>/dev/virtio-ports/new >&0 2>/dev/null &")
        line.send("to the new one\n")
        line.expect("to the new one\n")
        viodev.ctl("con", "port", "remove", "new")
    guest.check(until("! grep -q new /sys/class/virtio-ports/*/name"))


def rebound(guest, viodev, host, console):
    """CON-16: the driver goes while ports are being used, and comes back."""
    driver = "/sys/bus/virtio/drivers/virtio_console"
    with host.met(guest, "one"):
        guest.check("(cat /dev/virtio-ports/one; touch /tmp/over) >/dev/null 2>&1 &")
        wait_for("the guest to have it open", lambda: port(viodev, "one")["guest-open"])
        guest.check(f"device=$(cd {driver}; echo virtio*); echo $device >/tmp/device; echo $device >{driver}/unbind")
        guest.check(until("[ -e /tmp/over ]") + " && [ ! -e /sys/class/virtio-ports/vport0p1 ]")
        assert status(viodev, "con")["driver"] == "none"
    guest.check(f"cat /tmp/device >{driver}/bind")
    link(guest, 3)
    with host.met(guest, "one") as line:
        guest.check("head -n 1 0<>/dev/virtio-ports/one >&0 2>/dev/null &")
        line.send("back\n")
        line.expect("^back\n")
    console.text = b""
    guest.check("echo from hvc0 >/dev/hvc0")
    console.expect("from hvc0")


def emergency(guest, viodev, host, console):
    """CON-01, CON-02: without a driver a character goes out by a write to the configuration; Linux itself never does."""
    guest.check("cd /sys/bus/pci/drivers/virtio-pci; function=$(basename $(ls -d 0000:*)); echo $function >/tmp/function; "
                "echo $function >unbind; setpci -s $function COMMAND=2:2")
    console.text = b""
    found = re.search(r"VirtIO: DeviceCfg\s+BAR=(\d) offset=(\w+)", guest.check("lspci -vv -s $(cat /tmp/function)"))
    if found:
        bar, offset = int(found[1]), int(found[2], 16)
        start = int(guest.check(f"sed -n {bar + 1}p /sys/bus/pci/devices/$(cat /tmp/function)/resource").split()[0], 16)
        for character in b"help":
            guest.check(f"devmem {start + offset + 8} 32 {character}")
        console.expect("help")
    guest.check("cat /tmp/function >/sys/bus/pci/drivers/virtio-pci/bind; "
                + until("[ $(ls /sys/class/virtio-ports | wc -l) = 4 ]"))


def test_legacy(t):
    """A legacy console on i440fx: login, resize, ports, flow control, agent, hot-plug, reconnection, rebinding."""
    bound(t, "legacy", "pc")


def test_transitional(t):
    """The same of a transitional one, on q35."""
    bound(t, "transitional", "q35")


def test_modern(t):
    """The same of a modern one, on q35."""
    bound(t, "modern", "q35")


def test_backends(t):
    """A pty with its link, a file, a socket that was connected, an inherited descriptor; all inside of the sandbox.

    What nobody reads does not stall the guest, and what nobody has read yet is kept.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(t.tmp / "peer"))
    listener.listen()
    ours, theirs = socket.socketpair()
    terminal, file, log = t.tmp / "pty", t.tmp / "file", t.tmp / "log"
    file.write_text("before\n")
    with t.serve(f"console,id=con,console=pty:{terminal},port.pty=pty,port.file=file:{file},port.peer=unix-connect:{t.tmp}/peer,"
                 f"port.fd=fd:{theirs.fileno()},overflow=drop,backlog=64K,log={log},log.file={log}.file", fds=(theirs.fileno(),)) as viodev:
        theirs.close()
        peer = listener.accept()[0]
        assert status(viodev, "con")["sandbox"]["seccomp"]
        path = os.readlink(terminal)
        assert path == port(viodev, "console")["path"] and f"console is at {path}" in viodev.messages, viodev.messages
        with t.guest(attach(viodev), append="console=hvc0") as guest:
            link(guest, 4)
            for _ in range(2):  # whoever closes a terminal may come back
                with Line(terminal) as console:
                    wait_for("the terminal to be open", lambda: port(viodev, "console")["host-open"])
                    login(guest, viodev, None, console)
                    console.send("exit\r")
                    guest.check(until("! kill -0 $(cat /tmp/login) 2>/dev/null"))
                wait_for("the terminal to be closed", lambda: not port(viodev, "console")["host-open"])
            guest.check("echo nobody reads this yet >/dev/hvc0")
            wait_for("it in the log", lambda: "nobody reads this yet" in log.read_text())
            assert log.read_text().count("login: ") == 2
            log.rename(f"{log}.1")
            viodev.ctl("con", "log", "console", log)
            with Line(terminal) as console:
                console.expect("nobody reads this yet\r?\n")
            guest.check("echo in the new log >/dev/hvc0")
            wait_for("it in the new log", lambda: "in the new log" in log.read_text())
            guest.check("dd if=/dev/zero of=/dev/virtio-ports/fd bs=64k count=64 2>/dev/null")
            wait_for("output to be dropped", lambda: port(viodev, "fd")["lost"] > MIB)
            while select.select([ours], [], [], 0.3)[0]:
                assert ours.recv(MIB)
            with Line(port(viodev, "pty")["path"]) as line:
                echoed(guest, "pty", line)
            for name, sock in ("peer", peer), ("fd", ours):
                line = Line(sock)
                echoed(guest, name, line)
                guest.check(f"(cat /dev/virtio-ports/{name}; touch /tmp/{name}) >/dev/null 2>&1 &")
                line.close()
                guest.check(until(f"[ -e /tmp/{name} ]"))
                if name == "peer":  # the listener's next connection, which comes at once
                    echoed(guest, "peer", Line(listener.accept()[0]))
                else:
                    assert not port(viodev, name)["host-open"]
            guest.check("seq 1000 >/dev/virtio-ports/file; cat /dev/virtio-ports/file & sleep 0.2; kill $!")
            wait_for("the file to be written", lambda: file.read_text() ==
                     "before\n" + "".join(f"{n}\n" for n in range(1, 1001)))
            assert (t.tmp / "log.file").read_text() == file.read_text()[len("before\n"):]
        assert status(viodev, "con")["driver-errors"] == 0
    listener.close()
    assert sorted(os.listdir(t.tmp)) == ["file", "log", "log.1", "log.file", "peer"], "the link is left behind"


def echoed(guest, name, line):
    """Bytes go both ways."""
    guest.check(f"head -n 1 0<>/dev/virtio-ports/{name} >&0 2>/dev/null &")
    line.send("there and back\n")
    line.expect("^there and back\n")
    guest.check(until("! pidof head"))


def own_terminal(slave):
    """In a process that begins: what is typed and done at the terminal reaches it."""
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


def test_stdio(t):
    """`viodev run` in a terminal: hvc0 is all that the guest has, follows its size, and leaves it as it was."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (43, 132))
    before = termios.tcgetattr(slave)
    command = [t.viodev, "run", "console,console=stdio", "--", f"{t.kit}/bin/qemu-system-x86_64", "-accel", "tcg", "-m", "256M",
               "-cpu", "max", "-nodefaults", "-display", "none", "-no-reboot", "-kernel", f"{t.kit}/vmlinux", "-initrd",
               f"{t.kit}/initrd.cpio", "-append", f"console=hvc0 panic=-1 viodev.tty=hvc0 {QUICK_BOOT}"]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=subprocess.PIPE, text=True,
                          preexec_fn=lambda: own_terminal(slave)) as process, \
            Line(master) as line:
        try:
            line.expect("Run /init as init process")
            line.expect("viodev-ready")
            line.send("end\ndmesg -n 1; seq 1000; stty -F /dev/hvc0 size; "
                      "until stty -F /dev/hvc0 size | grep '50 120'; do sleep 0.1; done; "
                      "stty -F /dev/hvc0 raw -echo; echo keys; head -c 4 /dev/hvc0 | od -An -tx1; poweroff -f\nend\n")
            line.expect("end\\+\r?\n1\r?\n(?s:.*)\n1000\r?\n43 132\r?\n")
            termios.tcsetwinsize(master, (50, 120))
            line.expect("50 120\r?\n")
            line.expect("keys\r?\n")
            line.send("\x03\x1a\x1c\x01\x01")  # the guest's, and the escape key itself
            line.expect("03 1a 1c 01")
            errors = process.communicate(timeout=PATIENCE)[1]
            assert termios.tcgetattr(slave) == before, "the terminal was left raw"
        finally:
            process.kill()
    assert process.returncode == 0 and not SANITIZER.search(errors), f"{process.returncode}\n{errors}"
    os.close(slave)


def test_many_ports(t):
    """31 ports, each by its name, each its own bytes; all at once."""
    names = [f"port-{n}" for n in range(1, 31)]
    options = ",".join(f"port.{name}=unix:{t.tmp}/{name}" for name in names)
    with t.serve(f"console,id=con,console=file:{t.tmp}/console,{options}") as viodev, t.guest(attach(viodev)) as guest:
        link(guest, len(names))
        assert guest.check(f"{NAMES} | sort -t - -k 2n").split() == names
        lines = {name: Line(t.tmp / name) for name in names}
        guest.check("seq 10000 >/tmp/seq; for p in /dev/virtio-ports/*; do (echo ${p##*/}; cat /tmp/seq) >$p & done; wait")
        for name, line in lines.items():
            line.expect(f"^{name}\n1\n(?s:.*)\n10000\n$")
            line.close()
        viodev.ctl("con", "port", "remove", "port-30")
        guest.check(until("[ $(ls /sys/class/virtio-ports | wc -l) = 30 ]"))
        assert status(viodev, "con")["driver-errors"] == 0


def test_example_shout(t):
    """examples/shout.c: its configuration is the terminal's size; what a worker thread made of each line comes back."""
    with served_by(t, "examples/shout") as device, t.guest(vm.vfio_user_device(device.path)) as guest:
        assert guest.check("stty -F /dev/hvc0 size") == "43 132\n"
        lines = [f"line {number} of many" for number in range(100)]
        size = len("\n".join(lines)) + 1
        # The terminal forgets how it was set when the last one closes it.
        guest.check(f"""(exec 3<>/dev/hvc0; stty raw -echo <&3
            head -c {size} <&3 >/tmp/answer &
            for i in $(seq 0 99); do echo line $i of many >&3; done; wait) >/dev/null 2>&1""")
        assert guest.check("cat /tmp/answer") == "\n".join(lines).upper() + "\n"
