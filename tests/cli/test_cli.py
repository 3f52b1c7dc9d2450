#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The command as a user or a script sees it."""

import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import resource
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import unittest

from frontend import BUFFERS, Dropped, P9, VfioUser, VhostUser as VhostFrontend

VIODEV = os.environ["VIODEV"]  # of the option --viodev
SANITIZED = b"__asan_init" in pathlib.Path(VIODEV).read_bytes()
WAIT = 120  # seconds for what takes milliseconds, on a machine that is not busy

PTRACE_SEIZE = 0x4206  # of <linux/ptrace.h>

FAKE_QEMU = """#!/bin/sh
# Says that it has the device, as QEMU does; otherwise prints its arguments and does what the environment asks.
case "$1 $2" in "-device vfio-user-pci,help" | "-device vhost-user-blk-pci,help") exit ${FAKE_PROBE:-0};; esac
for arg; do echo "$arg"; done >"$FAKE_OUT"
trap 'echo HUP >>"$FAKE_OUT"; exit 5' HUP
trap 'echo USR1 >>"$FAKE_OUT"' USR1
trap 'echo TERM >>"$FAKE_OUT"; exit 6' TERM
echo up >>"$FAKE_OUT"
while test -n "$FAKE_WAIT"; do sleep 0.02; done
exit ${FAKE_EXIT:-0}
"""

# Runs a command under a kernel that refuses the system calls NAME=ERRNO,... of its first argument.
REFUSE = """
import ctypes, os, sys
lib = ctypes.CDLL("libseccomp.so.2")
lib.seccomp_init.restype = ctypes.c_void_p
ctx = ctypes.c_void_p(lib.seccomp_init(0x7fff0000))
for word in sys.argv[1].split(","):
    name, errno = word.split("=")
    number = lib.seccomp_syscall_resolve_name(name.encode())
    assert number > 0 and lib.seccomp_rule_add_array(ctx, 0x50000 | int(errno), number, 0, None) == 0
assert lib.seccomp_load(ctx) == 0
os.execvp(sys.argv[2], sys.argv[2:])
"""


def wait_for(what, text="it"):
    """Polls until what() is true; returns its result."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        result = what()
        if result:
            return result
        time.sleep(0.005)
    raise AssertionError(f"waited in vain for {text}")


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def proc_status(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}


def effort(pid):
    """Counters that grow when a process wakes up or runs."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return proc_status(pid)["voluntary_ctxt_switches"], fields[11], fields[12]


def wait_asleep(*pids, seconds=0.5):
    """Waits until none of them has run for so long."""
    def asleep():
        before = [effort(pid) for pid in pids]
        time.sleep(seconds)
        return [effort(pid) for pid in pids] == before
    wait_for(asleep, "sleep")


def viodev(*args, **kwargs):
    return subprocess.run([VIODEV, *map(str, args)], capture_output=True, text=True, timeout=WAIT, **kwargs)


class Serve:
    """A running `viodev serve`, ready; use it in a `with` statement."""

    def __init__(self, *args, prefix=(), **kwargs):
        self.process = subprocess.Popen(
            [*prefix, VIODEV, "serve", *map(str, args)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)
        self.errors = ""
        self.lines = []
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if self.lines[-1] == "ready" or self.lines[-1].startswith('{"event":"ready","qemu"') or \
                    self.lines[-1] == '{"event":"ready"}':
                return
        self.end()
        raise AssertionError(f"serve ended: {self.errors}")

    def _read_errors(self):
        for line in self.process.stderr:
            self.errors += line

    def end(self, signo=signal.SIGTERM):
        """Ends it; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signo)
        result = self.process.wait(WAIT)
        self._reader.join(WAIT)
        self.process.stdout.close()
        self.process.stderr.close()
        return result

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.end()


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = pathlib.Path(tempfile.mkdtemp(prefix="viodev-cli."))
        self.addCleanup(shutil.rmtree, self.tmp)
        self.dir = self.tmp / "d"
        self.image = self.tmp / "disk,1.raw"
        with open(self.image, "wb") as file:
            file.truncate(1 << 20)
        self.block = "block,path=" + str(self.image).replace(",", ",,")

    def serve(self, *args, **kwargs):
        return Serve("--dir", self.dir, *args, **kwargs)

    def fake_qemu(self):
        path = self.tmp / "qemu"
        path.write_text(FAKE_QEMU)
        path.chmod(0o755)
        return path

    def status(self, name):
        result = viodev("ctl", "--json", self.dir / f"{name}.ctl", "status")
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)["reply"]

    def connect(self, name, kind="ctl"):
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.settimeout(WAIT)
        sock.connect(str(self.dir / f"{name}.{kind}"))
        return sock

    def ask(self, sock, data):
        """Sends bytes, returns the next line as a JSON value, None at the end."""
        with contextlib.suppress(BrokenPipeError):
            sock.sendall(data)
        return self.answer(sock)

    def answer(self, sock):
        line = b""
        while not line.endswith(b"\n"):
            try:
                byte = sock.recv(1)
            except ConnectionResetError:
                byte = b""
            if not byte:
                self.assertEqual(line, b"")
                return None
            line += byte
        return json.loads(line)


class Usage(Case):
    def test_wrong_usage(self):
        """Status 2 and one line that says what to do, for each kind of mistake."""
        regular = self.tmp / "regular"
        regular.write_text("x")
        rows = [
            ([], "missing command: serve, run, devices or ctl; see 'viodev --help'"),
            (["srve"], "no such command 'srve': did you mean 'serve'?"),
            (["frobnicate"], "no such command 'frobnicate': did you mean 'viodev --help'?"),
            (["device-process"], "device-process: reserved for internal use"),
            (["serve"], "serve: missing device, such as block,path=FILE or rng; see 'viodev devices'"),
            (["serve", "--dri=x", "rng"], "serve: no such option --dri: did you mean --dir?"),
            (["serve", "--colour", "rng"], "serve: no such option --colour: see 'viodev serve --help'"),
            (["devices", "--once"], "devices: no such option --once: see 'viodev devices --help'"),
            (["serve", "--once=yes", "rng"], "serve: --once takes no value"),
            (["serve", "rng", "--dir"], "serve: --dir: missing value, write --dir=VALUE"),
            (["serve", "--sandbox=maybe", "rng"], "serve: --sandbox=maybe: must be on or off"),
            (["serve", "--memory=much", "rng"], "serve: --memory=much: must be a size such as 512M or 2G"),
            (["serve", "--memory=0", "rng"], "serve: --memory=0: must be a size such as 512M or 2G"),
            (["serve", "--transport=tcp", "rng"], "serve: --transport=tcp: must be vfio-user or vhost-user"),
            (["serve", f"--dir={self.tmp}/no/dir", "rng"],
             f"serve: --dir={self.tmp}/no/dir: No such file or directory"),
            (["serve", f"--dir={self.dir}", "rng,id=a", "rng,id=a"],
             "rng: id=a: used twice: choose one per device"),
            (["serve", f"--dir={self.dir}", "rng,id=../a"],
             "rng: id=../a: must be a letter followed by letters, digits, '-', '_' or '.', at most 31"),
            (["serve", f"--dir={self.dir}", "rng,rat=1"], "rng: no such key 'rat': did you mean 'rate'?"),
            (["serve", f"--dir={self.dir}", "rng,rate=fast"], None),
            (["serve", f"--dir={self.dir}", "block,path=/nonexistent"],
             "block: path=/nonexistent: No such file or directory"),
            (["serve", f"--dir={self.dir}", "block"], None),
            (["serve", f"--dir={self.dir}", f"rng,socket={regular}"],
             f"rng: socket={regular}: exists and is not a socket"),
            (["serve", f"--dir={self.dir}", "rng,socket=/" + "x" * 107], None),
            (["serve", f"--dir={self.dir}", "rng,socket="], "rng: socket=: must name a file"),
            (["serve", f"--dir={self.dir}", "--transport=vhost-user", "rng,socket=unix-connect:"],
             "rng: socket=: must name a file"),
            (["serve", f"--dir={self.dir}", "rng,socket=unix-connect:/x"],
             "rng: socket=unix-connect:/x: vfio-user needs a listening socket"),
            (["serve", f"--dir={self.dir}", "rng,socket=fd:x"],
             "rng: socket=fd:x: must be fd:N with a descriptor number"),
            (["serve", f"--dir={self.dir}", "--fd=99", "rng"],
             "rng: socket=fd:99: not inherited, or used by another device"),
            (["serve", f"--dir={self.dir}", "--fd=0", "rng"], "rng: socket=fd:0: must be a UNIX stream socket"),
            (["serve", f"--dir={self.dir}", "--fd=3", "rng", "rng"],
             "serve: --fd: needs exactly one device: give each device socket=fd:N"),
            (["serve", "-v", "rng"], "serve: no such option -v: see 'viodev serve --help'"),
            (["help", "srve"], "no such command 'srve': did you mean 'serve'?"),
            (["serve", "--memory=1G", "rng"],
             "serve: --memory: only with --print-qemu, as the guest's VMM sets the size"),
            (["serve", "--print-capabilities", "rng", "block"],
             "serve: --print-capabilities: needs exactly one device"),
            (["serve", f"--dir={self.dir}", f"9p,path={self.tmp},in-order=on"],
             "9p: in-order=on: a request that does not end would stop all later ones"),
            (["serve", f"--dir={self.dir}", "rng,rate=0"],
             "rng: rate=0: must be a size such as 512, 64K or 2G, at least 1"),
            (["serve", f"--dir={self.dir}", "net,backend=null,bps=0"],
             "net: bps=0: must be a size such as 512, 64K or 2G, at least 1"),
            (["serve", f"--dir={self.dir}", "block", "path=/x", "ro=on"],
             "path=/x: no device: separate options by commas, without blanks: block,path=/x"),
            (["serve", f"--dir={self.dir}", "rng", "block,", "path=/x,ro=on"],
             "path=/x,ro=on: no device: separate options by commas, without blanks: block,path=/x,ro=on"),
            (["serve", f"--dir={self.dir}", "block,path=/a,b.img"],
             "block: no such key 'b.img': write a comma inside a value twice"),
            (["serve", "--print-capabilities", "blok"], "serve: blok: no such device type: did you mean 'block'?"),
            (["run", "rng"], "run: missing VMM: write viodev run DEVICE... -- qemu-system-x86_64 ..."),
            (["run", "--", "true"], "run: missing device before --, such as block,path=FILE or rng"),
            (["run", "rng", "--", "/nonexistent"], "run: /nonexistent: No such file or directory"),
            (["run", "rng", "--", "false"], "run: false: no vfio-user-pci: needs QEMU 10.1 or newer"),
            (["run", "--transport=vhost-user", "rng", "--", "false"],
             "run: false: no vhost-user-blk-pci: needs QEMU 10.1 or newer"),
            (["devices", "blok"], "devices: blok: no such device type: did you mean 'block'?"),
            (["devices", "block", "rng"], "devices: at most one type"),
            (["ctl", "x"], "ctl: usage: viodev ctl SOCKET COMMAND..., such as DIR/ID.ctl status"),
            (["ctl", "/nonexistent", "status"], "ctl: socket=/nonexistent: No such file or directory"),
        ]
        for args, error in rows:
            with self.subTest(args=args):
                result = viodev(*args)
                self.assertEqual(result.returncode, 2, result.stderr)
                self.assertEqual(result.stdout, "")
                self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
                if error:
                    self.assertEqual(result.stderr, f"viodev: {error}\n")
        self.assertEqual(regular.read_text(), "x")
        if self.dir.exists():
            self.assertEqual(list(self.dir.iterdir()), [])

    def test_directory_of_others(self):
        """No socket is made where someone else could replace it."""
        link = self.tmp / "link"
        link.symlink_to(self.dir)
        self.dir.mkdir()
        rows = [(self.dir, mode, None, f"writable by other users (mode {mode:04o}): use another, or chmod go-w")
                for mode in (0o777, 0o1777, 0o720, 0o702)]
        if os.geteuid() == 0:
            rows += [(self.dir, 0o700, self.dir, "owned by another user (uid 12345): use a directory of your own"),
                     (link, 0o700, link, "symbolic link owned by another user (uid 12345): use a directory of your own")]
        for path, mode, theirs, why in rows:
            with self.subTest(path=path, mode=mode):
                os.chmod(self.dir, mode)
                if theirs:
                    os.chown(theirs, 12345, 12345, follow_symlinks=False)
                for command in ["serve", f"--dir={path}", "rng"], ["run", f"--dir={path}", "rng", "--", self.fake_qemu()]:
                    result = viodev(*command)
                    self.assertEqual((result.returncode, result.stderr),
                                     (2, f"viodev: {command[0]}: --dir={path}: {why}\n"))
                self.assertEqual(list(self.dir.iterdir()), [])
                if theirs:
                    os.chown(theirs, 0, 0, follow_symlinks=False)
        os.chmod(self.dir, 0o755)
        with Serve("--dir", link, "rng"):
            self.assertEqual(self.status("rng0")["id"], "rng0")

    def test_no_directory(self):
        """Without XDG_RUNTIME_DIR an ordinary user must say where."""
        if os.geteuid() == 0:
            self.skipTest("root has /run/viodev")
        env = {key: value for key, value in os.environ.items() if key != "XDG_RUNTIME_DIR"}
        self.assertEqual(viodev("serve", "rng", env=env).returncode, 2)

    def test_help(self):
        for args in [["--help"], ["serve", "--help"], ["run", "--help"], ["devices", "--help"], ["ctl", "--help"]]:
            result = viodev(*args)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            for same in [*args[:-1], "-h"], ["help", *args[:-1]]:
                self.assertEqual(viodev(*same).stdout, result.stdout)
            self.assertIn("viodev", result.stdout.splitlines()[0])
            self.assertLessEqual(max(map(len, result.stdout.splitlines())), 80)
        self.assertEqual(viodev("ctl", "help").stdout, viodev("ctl", "--help").stdout)
        self.assertRegex(viodev("--version").stdout, r"^viodev \d+\.\d+\.\d+\n$")
        self.assertEqual(viodev("-V").stdout, viodev("--version").stdout)
        for arg in "-h", "--help":
            result = subprocess.run(["vhost-user-rng", arg], executable=VIODEV, capture_output=True, text=True)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertIn("vhost-user-TYPE", result.stdout.splitlines()[0])

    def on_terminal(self, columns, *args):
        """What the command prints on a terminal of that width."""
        master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
        with open(master, "rb", buffering=0) as reader:
            process = subprocess.Popen([VIODEV, *args], stdout=slave)
            os.close(slave)
            text = b""
            with contextlib.suppress(OSError):  # its end
                while data := reader.read(4096):
                    text += data
            self.assertEqual(process.wait(WAIT), 0)
        return text.decode().replace("\r\n", "\n")

    def test_devices_layout(self):
        """As wide as the terminal, or 80 columns; wrapped at blanks; each option states its default or what applies instead."""
        for type in [line.split()[0] for line in viodev("devices").stdout.splitlines()]:
            text = viodev("devices", type).stdout
            self.assertLessEqual(max(map(len, text.splitlines())), 80)
            for columns in 72, 132:
                wrapped = self.on_terminal(columns, "devices", type)
                self.assertLessEqual(max(map(len, wrapped.splitlines())), columns)
                self.assertEqual(wrapped.split(), text.split())
            self.assertEqual(text, self.on_terminal(80, "devices", type))
        text = " ".join(viodev("devices", "block").stdout.split())
        for words in "a power of two (256)", "iops=NUMBER limit, requests per second; default: none", \
                "virtio interface (transitional)":
            self.assertIn(words, text)
        self.assertIn("MTU offered to the guest; default: none", " ".join(viodev("devices", "net").stdout.split()))
        self.assertIn("virtio interface (modern)", viodev("devices", "input").stdout)
        sizes = [option["default"] for type in json.loads(viodev("devices", "--json").stdout)
                 for option in type["options"] if option["key"] == "queue-size"]
        self.assertEqual(sizes, ["256", "128", "64", "256", "64", "256", "128"])

    def test_make_install(self):
        """PREFIX= of `make install` reaches meson."""
        if not shutil.which("make"):
            self.skipTest("no make")
        root = pathlib.Path(__file__).parents[2]
        lines = subprocess.run(["make", "-n", "-C", root, "install", "PREFIX=/opt/x", "BUILD=b", "DESTDIR=/d"],
                               capture_output=True, text=True).stdout.splitlines()
        self.assertIn("meson configure b --prefix='/opt/x'", lines)
        self.assertIn("meson install -C b --destdir /d", lines)

    def test_full_output(self):
        """Standard output cannot be written: the exit status and an error line say so."""
        with open("/dev/full", "w", encoding="ascii") as full:
            for args in ["--help"], ["--version"], ["devices"], ["devices", "--json", "rng"], ["serve", "--help"]:
                with self.subTest(args=args):
                    result = subprocess.run([VIODEV, *args], stdout=full, stderr=subprocess.PIPE, text=True,
                                            timeout=WAIT)
                    self.assertEqual(result.returncode, 1)
                    self.assertEqual(result.stderr,
                                     "viodev: standard output: No space left on device: lines lost\n")

    def test_devices(self):
        text = viodev("devices").stdout
        self.assertRegex(text, r"(?m)^block +virtio-blk ")
        types = json.loads(viodev("devices", "--json").stdout)
        self.assertEqual([line.split()[0] for line in text.splitlines()], [type["type"] for type in types])
        block = json.loads(viodev("devices", "--json", "virtio-blk").stdout)
        self.assertIn(block, types)
        ninep = json.loads(viodev("devices", "--json", "virtio-9p").stdout)
        for type, required in (block, False), (ninep, True):
            path = [option for option in type["options"] if option["key"] == "path"]
            self.assertEqual(path[0]["required"], required)
        self.assertIn("VERSION_1", block["features"])
        text = viodev("devices", "block").stdout
        for option in block["options"]:
            self.assertIn(f"  {option['key']}=", text)


class Serving(Case):
    def test_ready_lines(self):
        """Lines in the order given; names by type, free ones first; a comma in a path; a bhyve name."""
        with self.serve("rng", "rng,id=rng0", "virtio-rnd", self.block, f"rng,id=x,socket={self.tmp}/x.s") as serve:
            self.assertEqual(serve.lines, [
                f"ready rng1 rng {self.dir}/rng1.sock",
                f"ready rng0 rng {self.dir}/rng0.sock",
                f"ready rng2 rng {self.dir}/rng2.sock",
                f"ready block0 block {self.dir}/block0.sock",
                f"ready x rng {self.tmp}/x.s",
                "ready",
            ])
            self.assertEqual(stat.S_IMODE(self.dir.stat().st_mode), 0o700)
            self.assertEqual(self.status("block0")["capacity"], 1 << 20)
            self.assertEqual(serve.end(), 0)
            self.assertEqual(serve.errors, "")
        self.assertEqual(list(self.dir.iterdir()), [])
        self.assertFalse((self.tmp / "x.s").exists())

    def test_pty_paths(self):
        """The ready line names the pseudo terminal, and bytes come out there."""
        devices = f"console,console=pty,port.one=unix:{self.tmp}/one,port.a b=pty:{self.tmp}/link", "rng"
        with self.serve(*devices) as serve:
            ready = f"ready console0 console {self.dir}/console0.sock"
            self.assertRegex(serve.lines[0], fr"\A{ready} console=/dev/pts/\d+ 'port.a b'=/dev/pts/\d+\Z")
            self.assertEqual(serve.lines[1], f"ready rng0 rng {self.dir}/rng0.sock")
            self.assertEqual(os.readlink(self.tmp / "link"), serve.lines[0].rpartition("=")[2])
        with self.serve("--json", *devices) as serve:
            console, rng = map(json.loads, serve.lines[:2])
            self.assertEqual(list(console["paths"]), ["console", "port.a b"])
            self.assertNotIn("paths", rng)
            status = self.status("console0")
            for path in console["paths"].values():
                self.assertTrue(stat.S_ISCHR(os.stat(path).st_mode))
                self.assertIn(path, json.dumps(status))

    def test_json_and_qemu(self):
        with self.serve("--json", "--print-qemu", "--memory=512M", "rng") as serve:
            device, ready = map(json.loads, serve.lines)
        self.assertEqual({key: device[key] for key in ("event", "id", "type", "socket", "ctl")}, {
            "event": "ready", "id": "rng0", "type": "rng",
            "socket": f"{self.dir}/rng0.sock", "ctl": f"{self.dir}/rng0.ctl"})
        self.assertEqual(device["qemu"][0], "-device")
        self.assertEqual(json.loads(device["qemu"][1]), {
            "driver": "vfio-user-pci", "id": "rng0", "socket": {"type": "unix", "path": f"{self.dir}/rng0.sock"}})
        self.assertEqual(ready, {"event": "ready", "qemu": [
            "-object", "memory-backend-memfd,id=viodev-mem,size=512M,share=on",
            "-machine", "memory-backend=viodev-mem"]})

    def test_print_qemu(self):
        """The words are those of a shell."""
        self.dir = self.tmp / "it's"
        with self.serve("--print-qemu", "rng") as serve:
            words = subprocess.run(["sh", "-c", f"for a in {serve.lines[1].removeprefix('qemu ')}; do echo $a; done"],
                                   capture_output=True, text=True).stdout.splitlines()
            self.assertEqual(words[0], "-device")
            self.assertEqual(json.loads(words[1])["socket"]["path"], f"{self.dir}/rng0.sock")
            self.assertEqual(serve.lines[2], "qemu -object memory-backend-memfd,id=viodev-mem,size=1G,share=on "
                                             "-machine memory-backend=viodev-mem")
        with self.serve("--print-qemu", f"9p,path={self.tmp}") as serve:
            self.assertIn('"id":"viodev-9p0"', serve.lines[1])  # QEMU wants a letter first
        with self.serve("--print-qemu", "--transport=vhost-user", "rng") as serve:
            self.assertIn('"driver":"vhost-user-rng-pci"', serve.lines[1])
            self.assertNotIn("packed", serve.lines[1])
            self.assertNotIn("in_order", serve.lines[1])
        with self.serve("--print-qemu", "--transport=vhost-user", "rng,packed=on,in-order=on") as serve:
            self.assertIn('"packed":true,"in_order":true', serve.lines[1])  # the front-end has to pass the offers on

    def test_default_directory(self):
        env = {**os.environ, "XDG_RUNTIME_DIR": str(self.tmp)}
        with Serve("rng", env=env) as serve:
            self.assertEqual(serve.lines[0], f"ready rng0 rng {self.tmp}/viodev/rng0.sock")

    def test_signals(self):
        for signo in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
            with self.serve("rng", self.block) as serve:
                pids = [self.status(name)["pid"] for name in ("rng0", "block0")]
                caught = int(proc_status(serve.process.pid)["SigCgt"], 16)
                self.assertFalse(caught & 1 << signo - 1, "handlers of startup are left: a new VMM could lose a signal")
                self.assertEqual(serve.end(signo), 0)
                self.assertFalse(any(map(alive, pids)))
                self.assertEqual(list(self.dir.iterdir()), [])

    def test_signal_while_opening(self):
        """A peer that accepts nothing blocks the second device; the first one's sockets and link do not stay."""
        self.dir.mkdir()
        full = str(self.dir / "full")
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
            listener.bind(full)
            listener.listen(0)
            waiting.connect(full)
            with subprocess.Popen([VIODEV, "serve", "--dir", self.dir, f"console,id=a,console=pty:{self.dir}/link",
                                   f"console,id=b,console=unix-connect:{full}"], stderr=subprocess.PIPE, text=True) as serve:
                wait_for(lambda: (self.dir / "a.sock").exists(), "the first device")
                wait_asleep(serve.pid)
                serve.terminate()
                errors = serve.communicate(timeout=WAIT)[1]
        self.assertEqual(serve.returncode, 2, errors)
        self.assertEqual([path.name for path in self.dir.iterdir()], ["full"])

    def test_sockets_in_use(self):
        """A live socket is refused and not disturbed by the probe; a stale one is replaced."""
        with self.serve("--once", "rng"):
            for device, path in (("rng", "rng0.ctl"), (f"rng,id=y,socket={self.dir}/rng0.sock", "rng0.sock")):
                result = viodev("serve", "--dir", self.dir, device)
                self.assertEqual(result.returncode, 2)
                self.assertEqual(result.stderr, f"viodev: rng: socket={self.dir}/{path}: in use by another process\n")
            self.assertEqual(self.status("rng0")["server"]["clients"], 0)
        with self.serve("rng") as serve:
            serve.end(signal.SIGKILL)
            self.assertEqual(sorted(path.name for path in self.dir.iterdir()), ["rng0.ctl", "rng0.sock"])
        with self.serve("rng"):
            self.assertEqual(self.status("rng0")["id"], "rng0")

    def test_one_stale_socket(self):
        """Of two servers that start on the same stale sockets, one serves and the other says why it does not."""
        with self.serve("rng") as serve:
            serve.end(signal.SIGKILL)
        for _ in range(5):
            both = [subprocess.Popen([VIODEV, "serve", "--dir", self.dir, "rng"], stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE, text=True) for _ in range(2)]
            winner, loser = both if both[0].stdout.readline() else reversed(both)
            _, errors = loser.communicate(timeout=WAIT)
            self.assertEqual((loser.returncode, errors),
                             (2, f"viodev: rng: socket={self.dir}/rng0.ctl: in use by another process\n"))
            self.assertEqual(self.status("rng0")["id"], "rng0")
            winner.kill()
            winner.communicate(timeout=WAIT)

    def test_socket_of_another_server(self):
        """A server that ends does not remove what another one has put in its place."""
        with self.serve("rng") as first:
            for path in self.dir.iterdir():
                path.unlink()
            with self.serve("rng"):
                self.assertEqual(first.end(), 0)
                self.assertEqual(self.status("rng0")["id"], "rng0")

    def test_resize_replaced(self):
        """An image replaced by mv is not the one that the device has open: the resize is refused."""
        for keep in False, True:
            with self.subTest(keep=keep):
                self.check_resize_replaced(keep)

    def check_resize_replaced(self, keep):
        """The old image has no name any more, or another one."""
        with self.serve(self.block, "scsi,lun0=" + str(self.image).replace(",", ",,") + ",lun0.share=on"):
            new = self.tmp / "new.img"
            new.write_bytes(bytes(1 << 16))
            if keep:
                self.image.rename(self.tmp / "old.img")
            new.rename(self.image)
            for words in ("block0", "resize", "4M"), ("scsi0", "resize", "lun0", "4M"):
                result = viodev("ctl", self.dir / f"{words[0]}.ctl", *words[1:])
                self.assertEqual(result.returncode, 1)
                self.assertIn("the image was replaced or removed, and the device still has the old file", result.stderr)
            self.assertEqual(self.image.stat().st_size, 1 << 16)

    def test_null_disks(self):
        """Disks without an image, to measure with."""
        with self.serve("block,backend=null,size=1T", "scsi,lun0.backend=null,lun0.size=2G,t1.lun0.type=cdrom"):
            status = self.status("block0")
            self.assertEqual((status["capacity"], status["engine"]), (1 << 40, "null"))
            luns = self.status("scsi0")["luns"]
            self.assertEqual([(lun["capacity"], lun["engine"]) for lun in luns], [(2 << 30, "null"), (0, "none")])
        for device, why in (("block,backend=null", "block: backend=null: missing size="),
                            (f"{self.block},backend=null,size=1G", "block: path: has no effect with backend=null"),
                            (f"{self.block},size=1G", "block: size: has no effect with backend=file"),
                            ("block", "block: missing path= (image: a raw file or a block device)"),
                            ("scsi,lun0.backend=null", "scsi: lun0.backend=null: missing lun0.size="),
                            ("scsi,lun0=x,lun0.size=1G", "scsi: lun0.size: has no effect with backend=file"),
                            ("scsi,lun0=x,lun0.backend=null,lun0.size=1G", "scsi: lun0: has no effect with backend=null"),
                            ("scsi,lun0.size=1G", "scsi: lun0.size: missing lun0=PATH"),
                            ("block,backend=null,size=1G,share=on", "block: share: has no effect with backend=null"),
                            ("block,backend=null,size=1G,werror=wait", "block: werror: has no effect with backend=null"),
                            ("scsi,lun0.backend=null,lun0.size=1G,lun0.format=raw",
                             "scsi: lun0.format: has no effect with backend=null"),
                            ("scsi,lun0.type=cdrom,lun0.format=raw",
                             "scsi: lun0.format: has no effect on an empty drive (give it to ctl medium)")):
            result = viodev("serve", "--dir", self.dir, device)
            self.assertEqual((result.returncode, result.stderr), (2, f"viodev: {why}\n"))

    def test_backend_sockets(self):
        """Sockets created by network backends are removed, others are not."""
        names = "listen", "one", "two"
        paths = [self.tmp / name for name in names]
        with self.serve(f"net,backend=stream,path={paths[0]},listen=on", f"net,backend=dgram,local={paths[1]},remote={paths[2]}",
                        f"net,backend=stream,path={paths[0]}", f"net,backend=dgram,local={paths[2]},remote={paths[1]}") as serve:
            self.assertTrue(all(path.is_socket() for path in paths))
            paths[1].unlink()
            paths[1].touch()
            self.assertEqual(serve.end(), 0)
        self.assertEqual([path.exists() for path in paths], [False, True, False])

    def test_mac(self):
        """The MAC address of a card without mac= is its own, local, and the same the next time."""
        macs = set()
        for _ in range(2):
            with self.serve("net,backend=null", "net,backend=null", "net,backend=user"):
                found = [self.status(f"net{i}")["mac"] for i in range(3)]
            macs.update(found)
            self.assertEqual(len(set(found)), 3)
        with tempfile.TemporaryDirectory() as other, \
                Serve(f"--dir={other}", "net,backend=null"):
            self.dir = pathlib.Path(other)
            macs.add(self.status("net0")["mac"])
        self.assertEqual(len(macs), 4)
        self.assertTrue(all(int(mac[:2], 16) & 3 == 2 for mac in macs), macs)

    def test_front_end_gives_up(self):
        """A front-end that disconnects is logged only if its driver was active."""
        with self.serve("rng") as serve:
            self.attach("rng0").close()
            wait_for(lambda: self.status("rng0")["server"]["clients"] == 1, "the first")
            client = VfioUser(self.dir / "rng0.sock", WAIT)
            client.start()
            client.close()
            line = "viodev: rng0: front-end disconnected while the driver was active\n"
            wait_for(lambda: line in serve.errors, "the line")
            self.assertEqual(serve.errors.count("front-end disconnected"), 1)

    def test_memory_limit(self):
        """Options that let the guest make a device use over 4 MiB say so, once, and status has the number."""
        image = str(self.image).replace(",", ",,")
        # A sixteenth of this machine's for the files that a guest remembers, and 3 MiB.
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        files = max(16, min(memory >> 24, 512))
        ninep = range(files + 3, files + 5)
        rows = (
            ("rng,queue-size=32768", None),
            (self.block, None),
            (self.block + ",queues=16,queue-size=1024", 5),
            (f"scsi,lun0={image}", None),
            (f"scsi,queues=16,queue-size=1024,lun0={image}", 6),
            ("net,backend=null", None),
            ("net,backend=null,queue-size=32768", 11),
            ("net,backend=user,connections=16", 6),
            ("net,backend=user", 258),
            ("net,backend=echo,queues=16", 6),
            ("console,console=pty", None),
            ("console,console=pty,queue-size=32768", 7),
            ("input,kind=keyboard", None),
            (f"9p,tag=t,msize=1048576,path={self.tmp}", ninep),
        )
        for device, mib in rows:
            with self.subTest(device), self.serve(device + ",id=d") as serve:
                limit = self.status("d")["memory-limit"]
                self.assertEqual(serve.end(), 0)
                said = [line for line in serve.errors.splitlines() if "memory" in line]
                self.assertEqual(limit > 4 << 20, bool(said))
                if isinstance(mib, range):
                    self.assertIn(-(-limit >> 20), mib)
                    mib = -(-limit >> 20)
                self.assertEqual(-(-limit >> 20) if said else None, mib)
                for line in said:
                    self.assertRegex(line, rf"^viodev: d: \w+: guest can use up to {mib} MiB of host memory$")
                self.assertLessEqual(len(said), 1)

    def test_image_in_use(self):
        with self.serve(self.block):
            result = viodev("serve", "--dir", self.dir, self.block + ",id=other")
            self.assertEqual(result.returncode, 2)
            self.assertIn(f"block: path={self.image}: in use", result.stderr)
            self.assertFalse((self.dir / "other.sock").exists())

    def test_other_format(self):
        """An image that looks like qcow2 is refused unless format=raw is given, also by `viodev ctl`."""
        qcow2 = self.tmp / "disk.qcow2"
        qcow2.write_bytes(b"QFI\xfb\0\0\0\3" + bytes(1 << 20))
        said = "looks like a qcow2 image"
        for device, raw in (f"block,path={qcow2}", "format=raw"), (f"scsi,lun0={qcow2}", "lun0.format=raw"), \
                (f"scsi,t3.lun2={qcow2},t3.lun2.type=cdrom", "t3.lun2.format=raw"):
            with self.subTest(device=device):
                result = viodev("serve", "--dir", self.dir, device)
                self.assertEqual(result.returncode, 2)
                self.assertIn(said, result.stderr)
                self.assertIn(f"add {raw} to", result.stderr)
                with self.serve(f"{device},{raw}"):
                    pass
        with self.serve("scsi,lun0=" + str(self.image).replace(",", ",,")):
            ctl = self.dir / "scsi0.ctl"
            result = viodev("ctl", ctl, "lun", "add", f"lun1={qcow2}")
            self.assertEqual(result.returncode, 2)
            self.assertIn(said, result.stderr)
            self.assertEqual(viodev("ctl", ctl, "lun", "add", f"lun1={qcow2},lun1.format=raw").returncode, 0)

    def test_identity(self):
        """Default serial numbers distinguish images, not spellings of their paths."""
        def serials(device, cwd):
            with self.serve(device, cwd=cwd):
                told = self.status(device.split(",")[0] + "0")
            return [told["serial"]] if "serial" in told else [lun["serial"] for lun in told["luns"]]

        for name in "one", "two":
            (self.tmp / name).mkdir()
            shutil.copy(self.image, self.tmp / name / "disk.img")
        one, two = (serials("block,path=disk.img", self.tmp / name) for name in ("one", "two"))
        self.assertNotEqual(one, two)
        self.assertEqual(serials("block,path=one/disk.img", self.tmp), one)
        self.assertEqual(serials(f"scsi,lun0={self.tmp}/one/disk.img,lun4=two/disk.img", self.tmp), one + two)
        self.assertEqual(serials("block,path=one/disk.img,serial=", self.tmp), [""])

    def test_shrink(self):
        """`viodev ctl resize` discards data only with --shrink, in any position."""
        size = self.image.stat().st_size
        with self.serve(self.block, "scsi,lun0=" + str(self.image).replace(",", ",,") + ",lun0.share=on"):
            for device, words in ("block0", ()), ("scsi0", ("lun0",)):
                ctl = self.dir / f"{device}.ctl"
                capacity = lambda: [unit["capacity"] for unit in self.status(device).get("luns", [self.status(device)])]
                wait_for(lambda: capacity() == [size], "the size is noticed")
                result = viodev("ctl", ctl, "resize", *words, "64K")
                self.assertEqual((result.returncode, self.image.stat().st_size), (1, size), result.stderr)
                self.assertIn("smaller than now: add --shrink", result.stderr)
                for order in ("resize", "--shrink", *words, "64K"), ("resize", *words, "64K", "--shrink"), \
                        ("resize", "--shrink", *words, "64K", "--json"):
                    for want, command in (64 << 10, order), (size, ("resize", *words, str(size))):
                        self.assertEqual(viodev("ctl", ctl, *command).returncode, 0)
                        wait_for(lambda: self.image.stat().st_size == want, "the file has its size")
            self.assertEqual(viodev("ctl", ctl, "resize", "--shrunk", "64K").returncode, 1)
            self.assertEqual(viodev("ctl", "--shrink", ctl, "resize", "64K").returncode, 2)

    def attach(self, name):
        """A front-end's beginning, vfio-user's version message; returns its socket."""
        sock = self.connect(name, "sock")
        body = struct.pack("<HH", 0, 1) + b'{"capabilities":{}}\0'
        sock.sendall(struct.pack("<HHIII", 1, 1, 16 + len(body), 0, 0) + body)
        self.assertEqual(struct.unpack("<HHIII", sock.recv(16, socket.MSG_WAITALL))[3:], (1, 0))
        return sock

    def test_once(self):
        """Each device ends when its front-end disconnects, and serve with the last one."""
        with self.serve("--once", "rng", "rng") as serve:
            first = self.status("rng0")["pid"]
            self.attach("rng0").close()
            wait_for(lambda: not alive(first), "rng0's end")
            self.assertIsNone(serve.process.poll())
            self.attach("rng1").close()
            self.assertEqual(serve.process.wait(WAIT), 0)
            self.assertEqual(list(self.dir.iterdir()), [])

    def test_without_once(self):
        """When a front-end disconnects, the device keeps listening."""
        with self.serve("rng"):
            for number in 1, 2, 3:
                self.attach("rng0").close()
                wait_for(lambda: self.status("rng0")["server"]["clients"] == number)
            wait_for(lambda: not self.status("rng0")["server"]["attached"])


    def test_full_output(self):
        """The ready line is not read: the log says so, and the device serves."""
        with open("/dev/full", "w", encoding="ascii") as full:
            process = subprocess.Popen([VIODEV, "serve", f"--dir={self.dir}", "rng"], stdout=full,
                                       stderr=subprocess.PIPE, text=True)
        with process.stderr:
            self.assertEqual(process.stderr.readline(),
                             "viodev: standard output: No space left on device: lines lost\n")
            self.assertEqual(self.status("rng0")["id"], "rng0")
            process.terminate()
            process.stderr.read()
            self.assertEqual(process.wait(WAIT), 0)

    def test_closed_stdio(self):
        """Started without descriptors 0 to 2: no other file gets their numbers."""
        process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", VIODEV, "serve", f"--dir={self.dir}", "rng"])
        try:
            wait_for(lambda: viodev("ctl", self.dir / "rng0.ctl", "status").returncode == 0, "the device")
            pid = self.status("rng0")["pid"]
            for who in process.pid, pid:
                self.assertEqual({os.readlink(f"/proc/{who}/fd/{fd}") for fd in range(3)}, {"/dev/null"})
        finally:
            process.terminate()
            self.assertEqual(process.wait(WAIT), 0)


class Supervision(Case):
    def test_death(self):
        """A dead device is reported by name and signal and started again, with what it had open."""
        rows = [("KILL", "killed by SIGKILL"), ("ABRT", "killed by SIGABRT"), ("TERM", "exited with status 0"),
                ("RTMIN", f"killed by signal {int(signal.SIGRTMIN)}")]
        if not SANITIZED:  # which handles it itself
            rows.append(("SEGV", "killed by SIGSEGV"))
        for name, text in rows:
            with self.subTest(name), self.serve(self.block, "rng") as serve:
                other = self.status("rng0")["pid"]
                pid = self.status("block0")["pid"]
                os.kill(pid, getattr(signal, "SIG" + name))
                wait_for(lambda: text in serve.errors, text)
                self.assertEqual(serve.errors, f"viodev: block0: {text}, restarting\n")
                # Whoever connects meanwhile waits.
                again = self.status("block0")
                self.assertNotEqual(again["pid"], pid)
                self.assertEqual(again["capacity"], 1 << 20)
                self.assertEqual(self.status("rng0")["pid"], other)
                self.assertEqual(serve.end(), 0)
                self.assertEqual(serve.lines[-1], "ready")

    def test_back_off(self):
        """The third restart takes longer than the first."""
        with self.serve("rng"):
            took = []
            for _ in range(3):
                pid = self.status("rng0")["pid"]
                start = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                self.assertNotEqual(self.status("rng0")["pid"], pid)
                took.append(time.monotonic() - start)
            self.assertGreater(took[0], 0.09)
            self.assertGreater(took[2], 0.39)

    def test_parent_dies(self):
        with self.serve("rng", self.block) as serve:
            pids = [self.status(name)["pid"] for name in ("rng0", "block0")]
            serve.end(signal.SIGKILL)
            wait_for(lambda: not any(map(alive, pids)), "the children's end")

    def test_death_with_once(self):
        with self.serve("--once", "rng") as serve:
            os.kill(self.status("rng0")["pid"], signal.SIGKILL)
            self.assertEqual(serve.process.wait(WAIT), 1)

    def test_stopped_device(self):
        """A device that ignores the first request to stop is killed by the second."""
        with self.serve("rng") as serve:
            pid = self.status("rng0")["pid"]
            os.kill(pid, signal.SIGSTOP)
            serve.process.send_signal(signal.SIGTERM)
            asked = lambda: int(proc_status(pid)["ShdPnd"], 16) & 1 << signal.SIGTERM - 1
            wait_for(asked, "the device to be asked")
            self.assertIsNone(serve.process.poll())
            wait_for(lambda: serve.process.send_signal(signal.SIGTERM) or not alive(serve.process.pid), "its end")
            self.assertEqual(serve.end(), 1)
            self.assertIn("rng0: killed by SIGKILL during shutdown", serve.errors)

    def test_asked_twice_at_once(self):
        """timeout(1) signals its command and then their process group: that is one shutdown, and a clean one."""
        with self.serve("rng") as serve:
            pid = self.status("rng0")["pid"]
            os.kill(pid, signal.SIGSTOP)
            for signo in signal.SIGTERM, signal.SIGINT:  # two of the same would count as one for the kernel
                serve.process.send_signal(signo)
            wait_for(lambda: int(proc_status(serve.process.pid)["ShdPnd"], 16) == 0, "both to be taken")
            os.kill(pid, signal.SIGCONT)
            self.assertEqual(serve.end(), 0)
            self.assertEqual(serve.errors, "")

    def test_log_that_nobody_reads(self):
        """Lines are lost, and counted, when standard error is full; the device continues."""
        read, write = os.pipe()
        with open(read, "rb", buffering=0) as reader, open(write, "wb", buffering=0) as writer:
            process = subprocess.Popen([VIODEV, "serve", "--verbose", "--transport=vhost-user", "--dir", self.dir, "rng"],
                                       stdout=subprocess.PIPE, stderr=writer)
            try:
                wait_for(lambda: process.stdout.readline() in (b"ready\n", b""), "ready")
                os.set_blocking(write, False)
                while writer.write(bytes(4096)) is not None:
                    pass
                os.set_blocking(write, True)
                for _ in range(3):
                    with self.connect("rng0", "sock"):
                        wait_for(lambda: self.status("rng0")["server"]["attached"], "the front-end")
                    wait_for(lambda: not self.status("rng0")["server"]["attached"], "its end")
                text = reader.read(1 << 20)
                with self.connect("rng0", "sock"):
                    while b"attached\n" not in text.rpartition(b"log lines lost\n")[2]:
                        text += reader.read(1 << 20)
                self.assertRegex(text, b"viodev: [1-9] log lines lost\nviodev: rng0: front-end attached\n")
            finally:
                process.terminate()
                process.wait(WAIT)
                process.stdout.close()

    def test_unkillable_device(self):
        """A process that the kernel cannot end is left behind, and named."""
        if os.geteuid() != 0:
            self.skipTest("needs root")
        libc = ctypes.CDLL(None, use_errno=True)
        with self.serve("rng", self.block) as serve:
            pid, other = (self.status(name)["pid"] for name in ("block0", "rng0"))
            # What ends is hidden from its parent for as long as its tracer has not looked.
            if libc.ptrace(PTRACE_SEIZE, pid, 0, 0) != 0:
                self.skipTest(f"ptrace: {os.strerror(ctypes.get_errno())}")
            try:
                serve.process.send_signal(signal.SIGTERM)
                wait_for(lambda: not alive(pid) and not alive(other), "the devices' end")
                self.assertEqual(serve.end(), 1)
            finally:
                os.waitpid(pid, 0)
            self.assertEqual(serve.errors, f"viodev: block0: process {pid} survives SIGKILL "
                                           "(hung disk?): left behind\n")
            self.assertEqual(list(self.dir.iterdir()), [])

    def test_dies_at_start(self):
        """Without free descriptors a device cannot be created: no restart."""
        for limits in "100:100", "140:140":
            result = subprocess.run(["prlimit", f"--nofile={limits}", VIODEV, "serve", f"--dir={self.dir}", "rng"],
                                    capture_output=True, text=True, timeout=WAIT)
            self.assertEqual((result.returncode, result.stdout), (2, ""))
            self.assertRegex(result.stderr, fr"\Aviodev: rng0: needs \d+ open files, the hard limit is {limits[:3]}: "
                                            r"raise it \(ulimit -Hn, LimitNOFILE=\)\n\Z")
        with self.serve("rng", prefix=["prlimit", "--nofile=64:4096"]):
            self.assertEqual(self.status("rng0")["id"], "rng0")
        result = subprocess.run(["prlimit", "--nofile=12:12", VIODEV, "serve", f"--dir={self.dir}", "rng"],
                                capture_output=True, text=True, timeout=WAIT)
        self.assertIn(result.returncode, (1, 2), result.stderr)
        self.assertNotIn("ready", result.stdout)
        self.assertNotIn("restarting", result.stderr)
        self.assertTrue(result.stderr.startswith("viodev: "), result.stderr)


class Sandbox(Case):
    def check(self, name="rng0"):
        """Checks what the kernel reports about a device process; returns its own view."""
        status = self.status(name)
        proc = proc_status(status["pid"])
        self.assertEqual(proc["Seccomp"], "2")
        self.assertEqual(proc["NoNewPrivs"], "1")
        for key in "CapInh", "CapPrm", "CapEff", "CapAmb":
            self.assertEqual(int(proc[key], 16), 0, key)
        limits = pathlib.Path(f"/proc/{status['pid']}/limits").read_text()
        self.assertRegex(limits, r"Max core file size +0 +0 ")
        self.assertRegex(limits, r"Max open files +(\d+) +\1 ")
        self.assertRegex(limits, r"Max locked memory +0 +0 ")
        sandbox = status["sandbox"]
        if "user" in sandbox["namespaces"]:
            self.assertRegex(limits, r"Max processes +2048 +2048 ")
        if not SANITIZED:
            self.assertRegex(limits, fr"Max address space +{1 << 44} +{1 << 44} ")
            self.assertRegex(limits, fr"Max data size +{1 << 30} +{1 << 30} ")
        self.assertTrue(sandbox["seccomp"] and sandbox["no-new-privs"] and sandbox["no-capabilities"])
        return status["pid"], sandbox, proc

    def check_root(self, pid):
        """It sees no files and can create none."""
        self.assertEqual(os.listdir(f"/proc/{pid}/root/"), [])
        self.assertNotEqual(os.stat(f"/proc/{pid}/root").st_ino, os.stat("/").st_ino)

    def test_as_we_are(self):
        with self.serve("rng", self.block):
            for name in "rng0", "block0":
                pid, sandbox, proc = self.check(name)
                if os.geteuid() == 0:
                    self.assertTrue(sandbox["empty-root"] and sandbox["nobody"])
                    self.assertEqual(set(proc["Uid"].split() + proc["Gid"].split()), {"65534"})
                    self.assertEqual(proc["Groups"], "")
                    self.assertEqual(int(proc["CapBnd"], 16), 0)
                    self.check_root(pid)

    def test_namespaces(self):
        with self.serve("rng"):
            pid, sandbox, _ = self.check()
            kinds = {"user": "user", "mount": "mnt", "net": "net", "ipc": "ipc", "uts": "uts"}
            for name, file in kinds.items():
                ours, theirs = (os.readlink(f"/proc/{who}/ns/{file}") for who in ("self", pid))
                self.assertEqual(name in sandbox["namespaces"], ours != theirs, name)

    def unprivileged(self, *prefix):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        # By way of env, which has lost what setpriv may still be allowed.
        if subprocess.run([*prefix, "env", VIODEV, "--version"], capture_output=True).returncode != 0:
            self.skipTest(f"{prefix[0]} cannot run viodev")
        os.chmod(self.tmp, 0o777)
        return prefix

    def test_ordinary_user(self):
        prefix = self.unprivileged("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
        os.chmod(self.image, 0o666)
        with self.serve("rng", self.block, prefix=prefix):
            for name in "rng0", "block0":
                pid, sandbox, _ = self.check(name)
                if "user" in sandbox["namespaces"]:
                    self.assertTrue(sandbox["empty-root"])
                    self.check_root(pid)

    def test_locked_memory(self):
        """A ring for each disk of a user who may lock no more than two pages for each."""
        user = 100000 + os.getpid()  # who has no ring yet, nor one that is still winding up
        prefix = self.unprivileged("prlimit", "--memlock=32768:32768", "setpriv", f"--reuid={user}", f"--regid={user}",
                                   "--clear-groups")
        images = [self.tmp / f"{n}.raw" for n in range(4)]
        for image in images:
            shutil.copy(self.image, image)
            os.chmod(image, 0o666)
        with self.serve(*(f"block,path={image}" for image in images), prefix=prefix):
            for n in range(4):
                status = self.status(f"block{n}")
                self.assertEqual(status["engine"], "io_uring")
                limits = pathlib.Path(f"/proc/{status['pid']}/limits").read_text()
                self.assertRegex(limits, r"Max locked memory +0 +0 ")

    def test_container(self):
        """Root without the capability that namespaces need: a bare directory instead."""
        prefix = self.unprivileged("setpriv", "--bounding-set=-sys_admin")
        with self.serve("--verbose", "rng", prefix=prefix):
            pid, sandbox, proc = self.check()
            self.assertEqual(sandbox["namespaces"], [])
            self.assertTrue(sandbox["empty-root"] and sandbox["nobody"])
            self.check_root(pid)

    def test_bare_container(self):
        """Root with hardly any capabilities still serves, and says what is missing."""
        prefix = self.unprivileged("setpriv", "--bounding-set=-all")
        with self.serve("--verbose", "rng", prefix=prefix) as serve:
            _, sandbox, _ = self.check()
            self.assertEqual(sandbox["namespaces"], [])
            self.assertFalse(sandbox["empty-root"])
            self.assertEqual(serve.end(), 0)  # and all that it wrote was read
            self.assertIn("viodev: rng0: sandbox: without an empty root directory: Operation not permitted",
                          serve.errors)

    def test_hints(self):
        """The error tells an ordinary user what to do."""
        prefix = self.unprivileged("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
        self.dir.mkdir()
        os.chown(self.dir, 12345, 12345)
        scsi = self.block.replace("block,path", "scsi,lun0")
        why = f"path={self.image}: Permission denied: ro=on serves it read-only"
        for device, error in (self.block, f"block: {why}"), (scsi, f"scsi: lun0: {why}"), \
                ("net,backend=tap,ifname=tap7", None):
            with self.subTest(device=device):
                result = subprocess.run([*prefix, VIODEV, "serve", f"--dir={self.dir}", device],
                                        capture_output=True, text=True, timeout=WAIT)
                self.assertEqual(result.returncode, 2)
                if error:
                    self.assertEqual(result.stderr, f"viodev: {error}\n")
                else:
                    self.assertRegex(result.stderr,
                                     r"\Aviodev: net: ifname=tap7: .*: create it as root: ip tuntap add tap7 "
                                     r"mode tap user \$USER\n\Z")
        if any(line.startswith("input ") and "built without" not in line for line in viodev("devices").stdout.splitlines()):
            event = self.tmp / "event0"
            event.touch(0o600)
            result = subprocess.run([*prefix, VIODEV, "serve", f"--dir={self.dir}", f"input,evdev={event}"],
                                    capture_output=True, text=True, timeout=WAIT)
            self.assertEqual(result.stderr, f"viodev: input: evdev={event}: Permission denied: "
                                            "needs root or the group input\n")
        os.chmod(self.image, 0o600)
        result = subprocess.run([*prefix, VIODEV, "serve", f"--dir={self.dir}", self.block], capture_output=True,
                                text=True, timeout=WAIT)
        self.assertEqual(result.stderr, f"viodev: block: path={self.image}: Permission denied\n")
        os.chmod(self.image, 0o644)
        with self.serve(self.block + ",ro=on", prefix=prefix):
            self.check("block0")

    def refuse(self, *calls):
        """A prefix; landlock_create_ruleset and unshare are what a container or a kernel may lack."""
        return sys.executable, "-c", REFUSE, ",".join(calls)

    def check_tree(self, *prefix):
        """No directory that the device has open leads out of its root, in which are the tree and its own files."""
        with self.serve(f"9p,path={self.tmp}", prefix=prefix):
            status = self.status("9p0")
            if not status["sandbox"]["own-tree"]:
                self.skipTest("no mount namespaces")
            if os.geteuid() != 0:
                return
            proc = pathlib.Path(f"/proc/{status['pid']}")
            self.assertEqual(sorted(os.listdir(proc / "root/")), ["proc", "tree"])
            self.assertTrue(os.path.samestat(os.stat(proc / "root/tree/0"), os.stat(self.tmp)))
            self.assertEqual(os.listdir(proc / "root/proc/self"), ["fd"])
            dirs = [fd for fd in (proc / "fd").iterdir() if fd.is_dir()]
            self.assertGreaterEqual(len(dirs), 2)
            for fd in dirs:
                up = os.stat(f"{fd}/../../../../../..")
                self.assertTrue(os.path.samestat(up, os.stat(proc / "root/")), os.readlink(fd))

    def test_tree(self):
        self.check_tree()

    def test_tree_without_landlock(self):
        self.check_tree(*self.refuse("landlock_create_ruleset=38"))

    def test_tree_of_ordinary_user(self):
        prefix = self.unprivileged("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
        self.check_tree(*prefix, *self.refuse("landlock_create_ruleset=38"))

    def check_tree_again(self, *prefix, uid=0, sandbox="on"):
        """A directory that is removed and made again is the device's, in its jail; the user there has the ID of a map."""
        share = self.tmp / "share"

        def make(name):
            share.mkdir()
            (share / name).touch()
            for path in share, share / name:
                os.chown(path, uid, uid)

        if os.geteuid() != 0:
            self.skipTest("needs root")
        make("old")
        with self.serve(f"9p,path={share},uidmap=77:{uid}:1", f"--sandbox={sandbox}", prefix=prefix) as serve, \
                P9(self.dir / "9p0.sock", WAIT) as client:
            jail = self.status("9p0")["sandbox"]
            if sandbox == "on" and not jail["own-tree"]:
                self.skipTest("no mount namespaces")
            self.assertEqual(client.owner("old"), 77)
            shutil.rmtree(share)
            self.assertIsNone(client.owner("new"))
            wait_for(lambda: "9p0: 9p: path= was removed on the host" in serve.errors, "the removal")
            make("new")
            wait_for(lambda: "9p0: 9p: path= was made again on the host: exported\n" in serve.errors, "the new one")
            self.assertEqual(client.owner("new"), 77)
            self.assertIsNone(client.owner("old"))
            if sandbox == "on":
                proc = pathlib.Path(f"/proc/{self.status('9p0')['pid']}")
                self.assertTrue(os.path.samestat(os.stat(proc / "root/tree/0"), os.stat(share)))
                self.assertEqual(len((proc / "mountinfo").read_text().splitlines()), 3)
            os.kill(self.status("9p0")["pid"], signal.SIGKILL)
            wait_for(lambda: "restarting" in serve.errors, "the restart")
            with P9(self.dir / "9p0.sock", WAIT) as again:
                self.assertEqual(again.owner("new"), 77)
        shutil.rmtree(share)

    def test_tree_made_again(self):
        self.check_tree_again()
        self.check_tree_again(sandbox="off")

    def test_tree_made_again_of_ordinary_user(self):
        user = self.unprivileged("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
        self.check_tree_again(*user, uid=12345)

    def test_tree_without_mounts(self):
        """A directory that cannot be replaced is not waited for, and the log says what to do."""
        share = self.tmp / "share"
        share.mkdir()
        with self.serve("rng"):
            if not self.status("rng0")["sandbox"]["landlock"]:
                self.skipTest("no Landlock")
        with self.serve(f"9p,path={share}", prefix=self.refuse("unshare=1")) as serve, P9(self.dir / "9p0.sock", WAIT) as client:
            self.assertFalse(self.status("9p0")["sandbox"]["own-tree"])
            share.rmdir()
            self.assertIsNone(client.owner("new"))
            wait_for(lambda: "path= was removed on the host" in serve.errors, "the removal")
            self.assertIn("(restart the device to export a new one)", serve.errors)

    def test_tree_without_anything(self):
        """Neither a mount nor Landlock would confine a compromised device to its tree."""
        prefix = self.refuse("landlock_create_ruleset=38", "unshare=1")
        result = subprocess.run([*prefix, VIODEV, "serve", f"--dir={self.dir}", f"9p,path={self.tmp}"],
                                capture_output=True, text=True, timeout=WAIT)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertNotIn("ready", result.stdout)
        self.assertRegex(result.stderr, r"\Aviodev: 9p0: sandbox: neither mount namespace nor Landlock .*"
                                        r"--sandbox=off\n\Z")
        with self.serve("--sandbox=off", f"9p,path={self.tmp}", prefix=prefix):
            self.assertFalse(self.status("9p0")["sandbox"]["own-tree"])
        with self.serve("rng", prefix=prefix):
            self.check()

    def test_off(self):
        with self.serve("--sandbox=off", "rng", self.block):
            status = self.status("rng0")
            proc, ours = proc_status(status["pid"]), proc_status("self")
            for key in "Seccomp", "NoNewPrivs", "CapEff", "Uid":
                self.assertEqual(proc[key], ours[key])
            self.assertFalse(any(status["sandbox"].values()))

    def test_descriptors(self):
        """Descriptors that the caller left open do not reach the devices."""
        with open(self.image, "rb") as file:
            for number in 3, 20, 300:
                fd = fcntl.fcntl(file, fcntl.F_DUPFD, number)
                self.addCleanup(os.close, fd)
                os.set_inheritable(fd, True)
            for sandbox in "on", "off":
                with self.serve(f"--sandbox={sandbox}", "rng", close_fds=False):
                    pid = self.status("rng0")["pid"]
                    links = {}
                    for path in pathlib.Path(f"/proc/{pid}/fd").iterdir():
                        with contextlib.suppress(FileNotFoundError):  # `ctl status`, which is just closed
                            links[path.name] = os.readlink(path)
                    self.assertNotIn(str(self.image), links.values())
                    # Besides those at fixed numbers a device has what it made.
                    kinds = {link.split(":")[0] for name, link in links.items() if int(name) > 3}
                    self.assertTrue(links["3"].startswith("pipe:"), links)
                    self.assertLessEqual(kinds, {"socket", "anon_inode"}, links)


class TruncatedMemory(Case):
    """A front-end truncates the file of its guest memory while the device uses it: it alone is dropped."""

    def work(self, front, chain):
        before = front.used()
        front.add(chain)
        front.kick()
        wait_for(lambda: front.used() == before + 1, "the request")

    def check(self, transport, frontend, device, name, chain, sizes):
        with self.serve(f"--transport={transport}", device) as serve:
            pid = self.status(name)["pid"]
            for size in sizes:
                with frontend(self.dir / f"{name}.sock", WAIT) as front:
                    front.start()
                    self.work(front, chain)
                    front.add(chain)
                    os.ftruncate(front.memfd, size)
                    with contextlib.suppress(Dropped):
                        front.kick()
                    front.await_dropped()
            with frontend(self.dir / f"{name}.sock", WAIT) as front:
                front.start()
                self.work(front, chain)
            self.assertEqual(self.status(name)["pid"], pid)
            self.assertEqual(serve.end(), 0)
        self.assertEqual(serve.errors.count("guest memory file truncated"), len(sizes), serve.errors)

    def test_rng(self):
        for transport, frontend in ("vfio-user", VfioUser), ("vhost-user", VhostFrontend):
            with self.subTest(transport):
                self.check(transport, frontend, "rng", "rng0", [64], [0, 0])

    def test_large(self):
        """A guest larger than the data limit of a device."""
        for transport, frontend in ("vfio-user", VfioUser), ("vhost-user", VhostFrontend):
            with self.subTest(transport):
                large = type("Large", (frontend,), {"bytes": 3 << 30})
                self.check(transport, large, "rng", "rng0", [64], [0, 0])

    def test_block(self):
        """The front-end truncates the ring, or only the request's buffer."""
        read = struct.pack("<IIQ", 0, 0, 0)
        for transport, frontend in ("vfio-user", VfioUser), ("vhost-user", VhostFrontend):
            with self.subTest(transport):
                self.check(transport, frontend, self.block, "block0", [read, 4096, 1], [0, BUFFERS, 0])


@unittest.skipIf(os.geteuid(), "needs to mount a file system")
class Full(Case):
    """The image's file system is full, and a request waits."""

    def setUp(self):
        super().setUp()
        mount = self.tmp / "mount"
        mount.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "viodev", mount], check=True)
        self.addCleanup(subprocess.run, ["umount", mount], check=True)
        self.full_image, self.filler = mount / "image", mount / "filler"

    def fill(self):
        with open(self.full_image, "wb") as file:
            file.truncate(1 << 20)
        with open(self.filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)) == 4096:
                pass

    def test_wait_and_resume(self):
        write = struct.pack("<IIQ", 1, 0, 8) + b"viodev" * 682 + bytes(4)
        for transport, frontend in ("vfio-user", VfioUser), ("vhost-user", VhostFrontend):
            self.fill()
            with self.subTest(transport), self.serve(f"--transport={transport}", "--json",
                                                     f"block,path={self.full_image}") as serve:
                with frontend(self.dir / "block0.sock", WAIT) as front:
                    front.start()
                    front.add([write, 1])
                    front.kick()
                    for waits in range(2):
                        event = json.loads(serve.process.stdout.readline())
                        self.assertEqual(event, {"event": "waiting", "id": "block0",
                                                 "ctl": f"{self.dir}/block0.ctl"})
                        self.assertEqual(self.status("block0")["waiting"], 1)
                        self.assertEqual(front.used(), 0)
                        if waits:
                            self.filler.unlink()
                        self.assertEqual(viodev("ctl", self.dir / "block0.ctl", "resume").returncode, 0)
                    wait_for(lambda: front.used() == 1, "the write")
                self.assertEqual(self.full_image.read_bytes()[4096:4102], b"viodev")
                self.assertEqual(serve.end(), 0)


    def test_waiting_unread(self):
        """An event that is not read is lost, logged, and stops nothing."""
        self.fill()
        write = struct.pack("<IIQ", 1, 0, 8) + b"viodev" * 682 + bytes(4)
        with self.serve("--json", f"block,path={self.full_image}") as serve:
            fd = os.open(f"/proc/{serve.process.pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
            self.addCleanup(os.close, fd)
            with contextlib.suppress(BlockingIOError):
                while os.write(fd, bytes(4096)):
                    pass
            with VfioUser(self.dir / "block0.sock", WAIT) as front:
                front.start()
                front.add([write, 1])
                front.kick()
                wait_for(lambda: "viodev: block0: standard output is full: event lost\n" in serve.errors, "the line")
                self.assertEqual(self.status("block0")["waiting"], 1)
            self.assertEqual(serve.end(), 0)


class Control(Case):
    def test_requests(self):
        with self.serve("rng"):
            words = ["x"] * 256
            rows = [
                (["status"], True),
                ({"command": ["status"]}, True),
                (["status", "now"], "status: takes no arguments"),
                (["frobnicate"], "rng: no such command 'frobnicate': see 'help'"),
                (words, "rng: no such command 'x': see 'help'"),
                ([*words, "x"], None), ([], None), ({}, None), ({"command": "status"}, None), ("status", None),
                (1, None), (None, None), ([1], None), ([["status"]], None), ({"command": [["status"]]}, None),
                ([[[[[]]]]], None),
            ]
            sock = self.connect("rng0")
            for request, expected in rows:
                with self.subTest(request=request):
                    answer = self.ask(sock, json.dumps(request).encode() + b"\n")
                    if expected is True:
                        self.assertEqual(answer["reply"]["id"], "rng0")
                    elif expected:
                        self.assertEqual(answer, {"ok": False, "error": expected})
                    else:
                        self.assertFalse(answer["ok"])
                        self.assertIn("malformed request", answer["error"])
            for junk in b"\n", b"{\n", b'["status"\n', b'["status"] x\n', b"\0\n", b"\xff\xfe\n", b'"\\u0000"\n':
                with self.subTest(junk=junk):
                    self.assertFalse(self.ask(sock, junk)["ok"])

    def test_pieces(self):
        """Single bytes; several requests at once; the last without waiting."""
        with self.serve("rng"):
            sock = self.connect("rng0")
            for byte in b'["status"]':
                sock.sendall(bytes([byte]))
            self.assertTrue(self.ask(sock, b"\n")["ok"])
            sock.sendall(b'["status"]\n["x"]\n["status"]\n')
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual([self.answer(sock)["ok"] for _ in range(3)], [True, False, True])
            self.assertIsNone(self.answer(sock))

    def test_too_long(self):
        """A request of 4,096 bytes is served; without an end in so many the client is dropped, and not kept waiting."""
        with self.serve("rng"):
            sock = self.connect("rng0")
            for _ in range(2):
                self.assertTrue(self.ask(sock, b'["status"' + b" " * (4096 - 11) + b"]\n")["ok"])
            for size in 4096, 5000, 1 << 20:
                with self.subTest(size=size):
                    sock = self.connect("rng0")
                    self.assertIsNone(self.ask(sock, b"[" + b" " * (size - 1)))
            self.assertEqual(self.status("rng0")["id"], "rng0")

    def test_new_image(self):
        """`viodev ctl` opens what it names; the sandboxed device gets that and nothing else."""
        other = self.tmp / "other.raw"
        shutil.copy(self.image, other)
        with self.serve("scsi,lun0=" + str(self.image).replace(",", ",,")):
            ctl = self.dir / "scsi0.ctl"
            for words, error in (("lun1=/nonexistent", "scsi: lun1: path=/nonexistent: No such file or directory"),
                                 (f"lun1={other},lun1.type=tape", None), (f"lun1={self.tmp}", None)):
                result = viodev("ctl", ctl, "lun", "add", words)
                self.assertEqual((result.returncode, result.stdout), (2, ""), result.stderr)
                if error:
                    self.assertEqual(result.stderr, f"viodev: ctl: {error}\n")
            result = viodev("ctl", ctl, "lun", "add", "other.raw", cwd=self.tmp)
            self.assertEqual((result.returncode, result.stderr), (1, "viodev: ctl: scsi: other.raw: no such LUN\n"))
            for cache in "direct", "writeback":
                result = viodev("ctl", ctl, "lun", "add", f"lun1=other.raw,lun1.cache={cache}", cwd=self.tmp)
                self.assertEqual((result.returncode, result.stdout), (0, "lun: lun1\n"), result.stderr)
                self.assertEqual([lun["name"] for lun in self.status("scsi0")["luns"]], ["lun0", "lun1"])
                self.assertEqual(viodev("ctl", ctl, "lun", "add", f"lun1={other}").returncode, 2)  # in use
                self.assertEqual(viodev("ctl", ctl, "resize", "lun1", "2M").returncode, 0)
                self.assertEqual(viodev("ctl", ctl, "lun", "remove", "lun1").returncode, 0)
            self.assertEqual(other.stat().st_size, 2 << 20)

    def test_new_port_refused(self):
        """What `viodev ctl` created for a refused port is removed; what a port has stays."""
        one, new, link = self.tmp / "one", self.tmp / "new", self.tmp / "link"
        with self.serve(f"console,port.one=unix:{one}"):
            for name, channel in ("new", f"unix:{new}"), ("one", f"unix:{new}"), ("new", f"pty:{link}"):
                result = viodev("ctl", self.dir / "console0.ctl", "port", "add", name, channel)
                self.assertEqual((result.returncode, result.stdout), (1, ""), result.stderr)
            result = viodev("ctl", self.dir / "console0.ctl", "port", "add", "new", f"unix:{one}")
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertFalse(os.path.lexists(new) or os.path.lexists(link))
            self.assertTrue(one.is_socket())

    def test_block_device(self):
        """Units on block devices, one that was there at the start and one that came later."""
        loops = []
        for size in 512, 4096:
            image = self.tmp / f"loop{size}.raw"
            image.write_bytes(bytes(1 << 20))
            try:
                loop = subprocess.run(["losetup", "--find", "--show", f"--sector-size={size}", image],
                                      capture_output=True, text=True, check=True).stdout.strip()
            except (OSError, subprocess.CalledProcessError):
                self.skipTest("no loop devices")
            self.addCleanup(subprocess.run, ["losetup", "--detach", loop], check=False)
            loops.append(loop)
        with self.serve(f"scsi,lun0={loops[0]}"):
            result = viodev("ctl", self.dir / "scsi0.ctl", "lun", "add", f"lun1={loops[1]}")
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            luns = self.status("scsi0")["luns"]
            self.assertEqual([(lun["capacity"], lun["block-size"]) for lun in luns], [(1 << 20, 512), (1 << 20, 4096)])
            self.assertEqual(viodev("ctl", self.dir / "scsi0.ctl", "lun", "remove", "lun1").returncode, 0)

    def test_requests_with_descriptors(self):
        """Those that no request takes, or that are of no use, are closed; too many at a time end the client."""
        def send(request, nr=1):
            read, write = os.pipe()
            self.addCleanup(os.close, read)
            socket.send_fds(sock, [json.dumps(request).encode() + b"\n"], [write] * nr)
            os.close(write)
            return read

        def is_closed(read):
            return select.select([read], [], [], WAIT)[0] and os.read(read, 1) == b""

        with self.serve("scsi,lun0=" + str(self.image).replace(",", ",,")):
            sock = self.connect("scsi0")
            command = ["lun", "add", "lun1=x"]
            for files in ["lun1"], ["other"], ["a name of more than 15 bytes"], [[]], ["lun1", "w.lun1"], "lun1":
                with self.subTest(files=files):
                    send({"command": command, "files": files})
                    self.assertFalse(self.answer(sock)["ok"])
                    sock.close()
                    sock = self.connect("scsi0")
            read = send({"command": command, "files": ["lun1"]})
            self.assertFalse(self.answer(sock)["ok"])
            self.assertTrue(is_closed(read))
            read = send({"command": ["status"], "files": ["lun1"]})
            self.assertTrue(self.answer(sock)["ok"])
            self.assertTrue(is_closed(read))
            read = send(["status"], 4)
            self.assertTrue(self.answer(sock)["ok"])
            self.assertEqual(select.select([read], [], [], 0)[0], [])
            more = send(["status"])
            self.assertIsNone(self.answer(sock))
            self.assertTrue(is_closed(read) and is_closed(more))
            self.assertEqual(self.status("scsi0")["id"], "scsi0")

    def test_clients_that_do_not_read(self):
        """Nor does one that sends half a line keep others from being served, up to eight at once."""
        with self.serve("rng"):
            lazy = self.connect("rng0")
            lazy.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for _ in range(100000):
                    lazy.send(b'["status"]\n' * 10)
            half = [self.connect("rng0") for _ in range(6)]
            for sock in half:
                sock.sendall(b'["sta')
            self.assertEqual(self.status("rng0")["id"], "rng0")
            lazy.setblocking(True)
            lazy.settimeout(WAIT)
            self.assertTrue(self.answer(lazy)["ok"])

    def test_more_than_eight(self):
        """The ninth waits until one goes; the device sleeps meanwhile."""
        with self.serve("rng"):
            socks = [self.connect("rng0") for _ in range(8)]
            for sock in socks:
                self.assertTrue(self.ask(sock, b'["status"]\n')["ok"])
            pid = self.ask(socks[0], b'["status"]\n')["reply"]["pid"]
            ninth = self.connect("rng0")
            ninth.sendall(b'["status"]\n')
            wait_asleep(pid)
            socks[3].close()
            self.assertTrue(self.answer(ninth)["ok"])

    def test_no_descriptors(self):
        """A device without descriptors for a client lets it wait, and sleeps meanwhile."""
        with self.serve("--sandbox=off", "rng"):
            pid = self.status("rng0")["pid"]
            wait_asleep(pid)
            used = set(map(int, os.listdir(f"/proc/{pid}/fd")))
            first_free = min(set(range(1000)) - used)
            _, most = old = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (first_free, most))
            sock = self.connect("rng0")
            sock.sendall(b'["status"]\n')
            slept = int(effort(pid)[0])
            wait_for(lambda: int(effort(pid)[0]) > slept + 3, "sleep between attempts")
            resource.prlimit(pid, resource.RLIMIT_NOFILE, old)
            self.assertTrue(self.answer(sock)["ok"])

    def test_words(self):
        """`viodev ctl` prints for people, and tells what failed."""
        with self.serve(self.block):
            ctl = self.dir / "block0.ctl"
            text = viodev("ctl", ctl, "status").stdout
            self.assertRegex(text, r"(?m)^capacity: 1048576$")
            self.assertRegex(text, r"(?m)^  seccomp: yes$")
            self.assertEqual(viodev("ctl", ctl, "resize", "2M").returncode, 0)
            self.assertEqual(self.status("block0")["capacity"], 2 << 20)
            self.assertEqual(self.image.stat().st_size, 2 << 20)
            result = viodev("ctl", ctl, "frobnicate")
            self.assertEqual((result.returncode, result.stdout), (1, ""))
            self.assertEqual(result.stderr, "viodev: ctl: block: no such command 'frobnicate': see 'help'\n")
            result = viodev("ctl", ctl, "resise", "2M")
            self.assertEqual(result.stderr, "viodev: ctl: block: no such command 'resise': did you mean 'resize'?\n")
            text = viodev("ctl", ctl, "help").stdout
            for line in "status: show the state of the device", "resume: retry requests held after an error":
                self.assertIn(line + "\n", text)
            self.assertRegex(text, r"(?m)^resize .*SIZE: ")
            result = viodev("ctl", "--json", ctl, "frobnicate")
            self.assertEqual((result.returncode, result.stderr), (1, ""))
            self.assertFalse(json.loads(result.stdout)["ok"])

    def test_device_socket(self):
        """The device's own socket in place of the control socket."""
        with self.serve("rng"):
            result = viodev("ctl", self.dir / "rng0.sock", "status")
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("is it the control socket, ID.ctl?", result.stderr)

    def test_not_ours(self):
        """A server that answers nonsense or without end, and one that hangs up."""
        for data in b"hello\n", b"[]\n", b"", b"{", b"{" * 70000 + b"\n", b"[" * (32 << 20):
            result = self.answered(data)
            self.assertEqual(result.returncode, 2)
            self.assertEqual(result.stderr.count("\n"), 1)

    def test_answers_for_the_terminal(self):
        """Escape sequences in a compromised device's answer do not reach the terminal."""
        evil = "a\x1b[2J\r\x9b\x7fz"
        for reply in {"ok": True, "reply": {evil: evil, "list": [evil], "in": {"x": evil}}}, {"ok": False, "error": evil}:
            result = self.answered(json.dumps(reply).encode() + b"\n")
            self.assertIn("a?[2J???z", result.stdout + result.stderr)
            self.assertFalse(set("\x1b\r\x9b\x7f") & set(result.stdout + result.stderr))

    def answered(self, data):
        """What `viodev ctl` makes of a server that answers so."""
        with tempfile.TemporaryDirectory(dir=self.tmp) as directory:
            path = f"{directory}/s"
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path)
                server.listen()

                def answer():
                    with server.accept()[0] as sock:
                        sock.makefile("rb").readline()
                        with contextlib.suppress(OSError):
                            sock.sendall(data)

                thread = threading.Thread(target=answer)
                thread.start()
                result = viodev("ctl", path, "status")
                thread.join(WAIT)
                return result


class RunCase(Case):
    def setUp(self):
        super().setUp()
        self.qemu = self.fake_qemu()
        self.out = self.tmp / "out"
        self.runtime = self.tmp / "run"
        self.runtime.mkdir()

    def env(self, **env):
        return {**os.environ, "FAKE_OUT": str(self.out), "XDG_RUNTIME_DIR": str(self.runtime), **env}

    def run_fake(self, *args, vmm=(), **env):
        return viodev("run", *args, "--", self.qemu, *vmm, env=self.env(**env))

    def start_fake(self, *args, **env):
        self.out.unlink(missing_ok=True)
        process = subprocess.Popen([VIODEV, "run", *args, "--", str(self.qemu)], env=self.env(FAKE_WAIT="1", **env),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.addCleanup(process.communicate, timeout=WAIT)
        self.addCleanup(process.kill)
        wait_for(lambda: self.out.exists() and self.out.read_text().endswith("up\n"), "the VMM")
        return process

    @staticmethod
    def children(process):
        return [int(pid) for pid in
                pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]

    @staticmethod
    def words(pid):
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


class Run(RunCase):
    def test_arguments(self):
        """Ours are added to the user's and contradict none of them."""
        def object_(size):
            return ["-object", f"memory-backend-memfd,id=viodev-mem,size={size},share=on",
                    "-machine", "memory-backend=viodev-mem"]

        rows = [
            ([], [], [*object_("1G"), "-m", "1G"]),
            (["--memory=512M"], [], [*object_("512M"), "-m", "512M"]),
            (["--memory=1000"], [], [*object_("1000B"), "-m", "1000B"]),
            ([], ["-M", "q35", "-m", "256"], object_("256M")),
            ([], ["-machine", "q35,accel=tcg", "--m", "2G"], object_("2G")),
            ([], ["-m", "size=3G,slots=2,maxmem=8G"], object_("3G")),
            ([], ["-m", "slots=2,size=3G"], object_("3G")),
            (["--memory=256M"], ["-m", "256"], object_("256M")),
            ([], ["-machine", "q35,memory-backend=own", "-m", "2G"], []),
            ([], ["-numa", "node,memdev=own", "-m", "2G"], []),
        ]
        for options, vmm, added in rows:
            with self.subTest(options=options, vmm=vmm):
                result = self.run_fake(*options, "rng,id=a", self.block, vmm=vmm)
                self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))
                lines = self.out.read_text().splitlines()
                self.assertEqual(lines.pop(), "up")
                self.assertEqual(lines[:len(vmm) + len(added)], vmm + added)
                devices = lines[len(vmm) + len(added):]
                self.assertEqual(devices[0::2], ["-device"] * 2)
                parsed = [json.loads(device) for device in devices[1::2]]
                self.assertEqual([device["id"] for device in parsed], ["a", "block0"])
                for device in parsed:
                    self.assertEqual(device["driver"], "vfio-user-pci")
                    self.assertTrue(device["socket"]["path"].startswith(f"{self.runtime}/viodev-"))
                self.assertEqual(list(self.runtime.iterdir()), [])

    def test_vhost_user(self):
        """Each type has its front-end."""
        share = self.tmp / "a,b"
        share.mkdir()
        rows = [
            (self.block + ",queue-size=64", "vhost-user-blk-pci", {"num-queues": 1, "queue-size": 64}),
            ("net,backend=null,mac=52:54:00:00:00:01,mtu=4000", "virtio-net-pci",
             {"mac": "52:54:00:00:00:01", "host_mtu": 4000}),
            ("net,backend=null,queues=2", "virtio-net-pci", {"mq": True}),
            ("net,backend=null,queue-size=512", "virtio-net-pci", {"rx_queue_size": 512, "tx_queue_size": 512}),
            (f"scsi,lun0={str(self.image).replace(',', ',,')},queues=2", "vhost-user-scsi-pci", {"num_queues": 2}),
            ("rng", "vhost-user-rng-pci", {}),
            ("input,kind=mouse", "vhost-user-input-pci", {}),
            (f"9p,path={share},tag=abc".replace("a,b", "a,,b"), "vhost-user-test-device-pci",
             {"virtio-id": 9, "num_vqs": 1, "config_size": 5}),
            (f"console,console=file:{self.tmp}/c", "vhost-user-test-device-pci",
             {"virtio-id": 3, "num_vqs": 2, "config_size": 12}),
            (f"console,port.a=file:{self.tmp}/c,port.b=file:{self.tmp}/d", "vhost-user-test-device-pci",
             {"virtio-id": 3, "num_vqs": 8, "config_size": 12}),
        ]
        for text, driver, properties in rows:
            with self.subTest(text=text):
                result = self.run_fake("--transport=vhost-user", f"--dir={share}", text)
                unexpected = [line for line in result.stderr.splitlines() if " of host memory" not in line]
                self.assertEqual((result.returncode, unexpected), (0, []))
                name = text.split(",")[0] + "0"
                id = "viodev-9p0" if name == "9p0" else name  # QEMU wants a letter first
                words = self.out.read_text().splitlines()[6:-1]
                reconnects = driver in ("vhost-user-blk-pci", "virtio-net-pci", "vhost-user-scsi-pci")
                more = ",reconnect-ms=100" if reconnects else ""
                socket = f"socket,id={id}-socket,path={self.tmp}/a,,b/{name}.sock{more}"
                self.assertEqual(words[:2], ["-chardev", socket])
                backend = ("chardev", f"{id}-socket")
                if driver == "virtio-net-pci":
                    queues = 2 if "queues=2" in text else 1
                    self.assertEqual(words[2:4], ["-netdev", f"vhost-user,id={id}-net,chardev={id}-socket,"
                                                             f"queues={queues}"])
                    backend = ("netdev", f"{id}-net")
                self.assertEqual(words[-2], "-device")
                self.assertEqual(json.loads(words[-1]), {"driver": driver, "id": id, **dict([backend]),
                                                         **properties})

    def test_contradictions(self):
        rows = [
            (["--memory=1G"], ["-m", "2G"], "--memory: conflicts with -m 2G: omit one"),
            (["--memory=1G"], ["-M", "memory-backend=x"],
             "--memory: the VMM's command line configures memory: omit one"),
            ([], ["-m", "1.5G"], "-m 1.5G: must be a whole number, such as 512M"),
            ([], ["-mem-path", "/dev/shm"], "-mem-path: guest memory must be shared: omit it, or name a "
                                            "memory-backend with share=on"),
        ]
        for options, vmm, error in rows:
            with self.subTest(vmm=vmm):
                result = self.run_fake(*options, "rng", vmm=vmm)
                self.assertEqual((result.returncode, result.stderr), (2, f"viodev: run: {error}\n"))
                self.assertFalse(self.out.exists())

    def test_old_qemu(self):
        result = self.run_fake("rng", FAKE_PROBE="1")
        self.assertEqual(result.returncode, 2)
        self.assertEqual(result.stderr, f"viodev: run: {self.qemu}: no vfio-user-pci: needs QEMU 10.1 or newer\n")

    def test_bad_device(self):
        result = self.run_fake("block,path=/nonexistent")
        self.assertEqual(result.returncode, 2)
        self.assertEqual(result.stderr, "viodev: block: path=/nonexistent: No such file or directory\n")
        self.assertFalse(self.out.exists())
        self.assertEqual(list(self.runtime.iterdir()), [])

    def test_exit_status(self):
        for status in 0, 1, 77:
            self.assertEqual(self.run_fake("rng", FAKE_EXIT=str(status)).returncode, status)

    def test_signals(self):
        """They reach the VMM, which decides; then everything is gone."""
        for signo, status in (signal.SIGTERM, 6), (signal.SIGHUP, 5):
            process = self.start_fake("rng")
            process.send_signal(signal.SIGUSR1)
            wait_for(lambda: "USR1" in self.out.read_text(), "USR1")
            self.assertIsNone(process.poll())
            process.send_signal(signo)
            self.assertEqual(process.wait(WAIT), status)
            self.assertEqual(list(self.runtime.iterdir()), [])

    def test_killed(self):
        """Nothing is left: no VMM, no device, no directory."""
        process = self.start_fake("rng")
        pids = self.children(process)
        self.assertGreaterEqual(len(pids), 3)
        self.assertEqual(len(list(self.runtime.iterdir())), 1)
        process.kill()
        wait_for(lambda: not any(map(alive, pids)), "the children's end")
        wait_for(lambda: list(self.runtime.iterdir()) == [], "the directory's end")

    def test_vmm_killed(self):
        process = self.start_fake("rng")
        vmm = [pid for pid in self.children(process) if self.words(pid)[1] == str(self.qemu).encode()]
        self.assertEqual(len(vmm), 1)
        os.kill(vmm[0], signal.SIGKILL)
        self.assertEqual(process.wait(WAIT), 128 + signal.SIGKILL)

    def test_directory(self):
        """With --dir the sockets are where they are looked for, and only they are removed."""
        process = self.start_fake(f"--dir={self.dir}", "rng")
        self.assertEqual(self.status("rng0")["id"], "rng0")
        process.terminate()
        self.assertEqual(process.wait(WAIT), 6)
        self.assertEqual(list(self.dir.iterdir()), [])
        self.assertEqual(list(self.runtime.iterdir()), [])


class Terminal(RunCase):
    """`viodev run` with a console on a terminal of its own."""

    def setUp(self):
        super().setUp()
        self.master, self.slave = os.openpty()
        self.addCleanup(os.close, self.slave)
        self.addCleanup(lambda: self.master is None or os.close(self.master))
        self.before = termios.tcgetattr(self.slave)

    def own_terminal(self):
        os.setsid()
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)

    def start(self, *command):
        """As a terminal starts it; what it says on standard error is read by nobody, so it is little."""
        process = subprocess.Popen([str(word) for word in command], env=self.env(FAKE_WAIT="1"), stdin=self.slave, stdout=self.slave,
                                   stderr=subprocess.PIPE, text=True, preexec_fn=self.own_terminal)
        self.addCleanup(process.communicate, timeout=WAIT)
        self.addCleanup(process.kill)
        return process

    def start_run(self, options="", *args):
        self.out.unlink(missing_ok=True)
        process = self.start(VIODEV, "run", f"--dir={self.dir}", *args, f"console,console=stdio{options}", "--", self.qemu)
        wait_for(lambda: self.out.exists() and self.out.read_text().endswith("up\n"), "the VMM")
        return process

    def type(self, keys):
        os.write(self.master, keys)

    def flags(self):
        return termios.tcgetattr(self.slave)[3]

    def check_left(self, process, status):
        """How it ended; it has left nothing behind."""
        self.assertEqual(process.wait(WAIT), status)
        self.assertEqual(termios.tcgetattr(self.slave), self.before)
        self.assertEqual(list(self.dir.iterdir()), [])

    def test_escape(self):
        """The keys that end and stop a program do not, and the escape key does."""
        process = self.start_run()
        self.assertEqual(process.stderr.readline(),
                         "viodev: terminal: the guest gets all keys; Ctrl-A x terminates, Ctrl-A h explains\n")
        self.assertFalse(self.flags() & (termios.ISIG | termios.ICANON))
        self.type(b"\x03\x1a\x1c\x01h")
        self.assertEqual(process.stderr.readline(), "viodev: Ctrl-A x terminates, Ctrl-A z stops ('fg' continues), "
                                                    "Ctrl-A Ctrl-A sends Ctrl-A\n")
        self.assertIsNone(process.poll())
        self.type(b"\x01x")
        self.check_left(process, 6)

    def test_interrupt_while_opening(self):
        """While another device's peer accepts nothing, the escape key is not served yet: Ctrl-C acts."""
        full = str(self.tmp / "full")
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
            listener.bind(full)
            listener.listen(0)
            waiting.connect(full)
            process = self.start(VIODEV, "run", f"--dir={self.dir}", "console,id=a,console=stdio",
                                 f"console,id=b,console=unix-connect:{full}", "--", self.qemu)
            wait_for(lambda: (self.dir / "a.ctl").exists(), "the first device")
            wait_asleep(process.pid)
            self.type(b"\x03")
            self.check_left(process, 2)

    def test_vmm_hangs(self):
        """The second time the escape key does not ask the VMM."""
        process = self.start_run()
        vmm, = (pid for pid in self.children(process) if str(self.qemu).encode() in self.words(pid))
        os.kill(vmm, signal.SIGSTOP)
        wait_for(lambda: proc_status(vmm)["State"].startswith("T"), "the VMM to be stopped")
        self.type(b"\x01x")
        wait_for(lambda: int(proc_status(vmm)["ShdPnd"], 16) & 1 << signal.SIGTERM - 1, "the VMM to be asked")
        self.assertIsNone(process.poll())
        self.type(b"\x01x")
        self.check_left(process, 1)
        wait_for(lambda: not alive(vmm), "the VMM's end")

    def test_signals(self):
        """However it ends, and after a crash of the device, the terminal is as it was and no socket is left."""
        for signo, status in (signal.SIGTERM, 6), (signal.SIGHUP, 5), (signal.SIGQUIT, 128 + signal.SIGQUIT):
            with self.subTest(signo=signo):
                process = self.start_run()
                pid = self.status("console0")["pid"]
                os.kill(pid, signal.SIGKILL)
                wait_for(lambda: self.status("console0")["pid"] != pid, "the device")
                self.assertFalse(self.flags() & termios.ICANON)
                process.send_signal(signo)
                self.check_left(process, status)

    def test_hang_up(self):
        """The terminal goes: so does everything else."""
        process = self.start_run()
        pids = self.children(process)
        os.close(self.master)
        self.master = None
        self.assertEqual(process.wait(WAIT), 5)
        self.assertFalse(any(map(alive, pids)))
        self.assertEqual(list(self.dir.iterdir()), [])

    def test_signal_on(self):
        """With signal=on the keys act as in other programs."""
        process = self.start_run(",signal=on")
        self.assertTrue(self.flags() & termios.ISIG)
        self.type(b"\x01x\x1c")
        self.check_left(process, 128 + signal.SIGQUIT)

    def test_job_control(self):
        """A shell has its terminal back while the job is stopped, and its keys; then the guest has them again."""
        for options, stop in ("", b"\x01z"), (",signal=on", b"\x1a"):
            with self.subTest(options=options):
                self.out.unlink(missing_ok=True)
                shell = self.start("bash", "--norc", "--noediting", "-i")
                self.type(f"{VIODEV} run --dir={self.dir} console,console=stdio{options} -- {self.qemu}\n".encode())
                wait_for(lambda: self.out.exists() and self.out.read_text().endswith("up\n"), "the VMM")
                raw = self.flags()
                pid = self.status("console0")["pid"]
                for _ in range(2):
                    self.assertFalse(raw & termios.ICANON)
                    self.type(stop)
                    wait_for(lambda: proc_status(pid)["State"].startswith("T"), "the device to be stopped")
                    wait_for(lambda: self.flags() & termios.ICANON and os.tcgetpgrp(self.master) == shell.pid, "the shell")
                    self.assertTrue(self.flags() & termios.ISIG)
                    self.type(b"fg\n")
                    wait_for(lambda: self.flags() == raw, "the terminal to be raw")
                    wait_for(lambda: not proc_status(pid)["State"].startswith("T"), "the device")
                self.type(b"\x01x" if not options else b"\x1c")
                wait_for(lambda: not alive(pid), "the end")
                wait_for(lambda: self.flags() & termios.ICANON and os.tcgetpgrp(self.master) == shell.pid, "the shell")
                self.assertEqual(list(self.dir.iterdir()), [])
                self.type(b"exit\n")
                shell.wait(WAIT)


class VhostUser(Case):
    """How a vhost-user front-end and a device's process find each other."""

    GET_FEATURES = struct.pack("<III", 1, 1, 0)

    def greet(self, sock):
        """Whether there is a back-end at the other end."""
        self.addCleanup(sock.close)
        sock.settimeout(WAIT)
        sock.sendall(self.GET_FEATURES)
        self.assertEqual(struct.unpack("<III", sock.recv(12, socket.MSG_WAITALL)), (1, 5, 8))
        self.assertTrue(struct.unpack("<Q", sock.recv(8, socket.MSG_WAITALL))[0] & 1 << 30)

    def connect_to(self, path):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(WAIT)
        sock.connect(str(path))
        return sock

    def connect_once_listening(self, path):
        """None: the socket is not there, or only bound."""
        try:
            return self.connect_to(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None

    def listen(self, name):
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.bind(str(self.tmp / name))
        sock.listen()
        sock.settimeout(WAIT)
        return sock

    def vhost(self, *args, **kwargs):
        return self.serve("--transport=vhost-user", *args, **kwargs)

    def backend(self, type, *args, **kwargs):
        return subprocess.Popen([f"/some/where/vhost-user-{type}", *args], executable=VIODEV, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)

    def output(self, process):
        out, errors = process.communicate(timeout=WAIT)
        return process.returncode, out, errors

    def test_connects(self):
        """socket=unix-connect: the front-end listens; when it goes it is called again, also after a kill."""
        front = self.listen("front")
        with self.vhost(f"rng,socket=unix-connect:{self.tmp}/front") as serve:
            self.assertEqual(serve.lines, [f"ready rng0 rng {self.tmp}/front", "ready"])
            for _ in range(2):
                peer = front.accept()[0]
                self.greet(peer)
                peer.close()
            peer = front.accept()[0]
            self.greet(peer)
            wait_for(lambda: self.status("rng0")["server"]["attached"])
            os.kill(self.status("rng0")["pid"], signal.SIGKILL)
            self.assertEqual(peer.recv(1), b"")
            self.greet(front.accept()[0])
            self.assertEqual(serve.end(), 0)
        self.assertTrue((self.tmp / "front").exists())

    def test_connects_later(self):
        """A front-end that listens later is waited for; with --once its end is the device's."""
        process = subprocess.Popen([VIODEV, "serve", "--dir", self.dir, "--once", "--transport=vhost-user",
                                    f"rng,socket=unix-connect:{self.tmp}/front"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(process.stderr.readline(), f"viodev: rng0: waiting for a front-end at {self.tmp}/front\n")
        peer = self.listen("front").accept()[0]
        self.greet(peer)
        peer.close()
        self.assertEqual(self.output(process), (0, f"ready rng0 rng {self.tmp}/front\nready\n", ""))

    def test_connected_descriptor(self):
        """--fd: a connected socket; its device ends when the front-end goes."""
        ours, theirs = socket.socketpair()
        with self.vhost(f"--fd={theirs.fileno()}", "rng", pass_fds=[theirs.fileno()]) as serve:
            self.assertEqual(serve.lines[0], f"ready rng0 rng fd:{theirs.fileno()}")
            theirs.close()
            self.greet(ours)
            ours.close()
            self.assertEqual(serve.process.wait(WAIT), 0)

    def test_listening_descriptors(self):
        """socket=fd: sockets that listen, one for each device; they outlive a front-end, a process, and viodev."""
        one, two = self.listen("one"), self.listen("two")
        fds = [one.fileno(), two.fileno()]
        with self.vhost(*(f"rng,socket=fd:{fd}" for fd in fds), pass_fds=fds) as serve:
            self.assertEqual(serve.lines, [f"ready rng0 rng {self.tmp}/one", f"ready rng1 rng {self.tmp}/two", "ready"])
            for name in "one", "one", "two":
                sock = self.connect_to(self.tmp / name)
                self.greet(sock)
                sock.close()
            os.kill(self.status("rng0")["pid"], signal.SIGKILL)
            self.greet(self.connect_to(self.tmp / "one"))
            self.assertEqual(serve.end(), 0)
        self.assertTrue((self.tmp / "one").exists())
        result = viodev("serve", "--dir", self.dir, *[f"rng,socket=fd:{fds[0]}"] * 2, pass_fds=fds)
        self.assertEqual((result.returncode, result.stderr),
                         (2, f"viodev: rng: socket=fd:{fds[0]}: not inherited, or used by another device\n"))

    def activate(self, names, *devices, pid="$$"):
        """`viodev serve` as systemd starts it: its sockets from descriptor 3 on."""
        fds = [self.listen(f"s{i}").fileno() for i in range(len(names))]
        moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in fds]
        for fd in moved:
            self.addCleanup(os.close, fd)
        places = " ".join(f"{3 + i}<&{fd}" for i, fd in enumerate(moved))
        script = f'exec {places}; LISTEN_PID={pid} LISTEN_FDS={len(fds)} LISTEN_FDNAMES={":".join(names)} exec "$@"'
        return ["bash", "-c", script, "-"], {"pass_fds": moved}

    def test_activated(self):
        """systemd's sockets go to the devices of their names, whatever the order."""
        prefix, more = self.activate(["b", "a.socket"])
        with self.vhost("rng,id=a", "rng,id=b", "rng,id=c", prefix=prefix, **more) as serve:
            self.assertEqual(serve.lines[:3], [f"ready a rng {self.tmp}/s1", f"ready b rng {self.tmp}/s0",
                                               f"ready c rng {self.dir}/c.sock"])
            self.greet(self.connect_to(self.tmp / "s1"))
        self.assertTrue((self.tmp / "s1").exists())

    def test_activated_alone(self):
        """One socket for one device needs no name; those for another process are none."""
        prefix, more = self.activate(["connection"])
        with self.vhost("rng", prefix=prefix, **more) as serve:
            self.assertEqual(serve.lines[0], f"ready rng0 rng {self.tmp}/s0")
        os.unlink(self.tmp / "s0")
        prefix, more = self.activate(["connection"], pid=1)
        with self.vhost("rng", prefix=prefix, **more) as serve:
            self.assertEqual(serve.lines[0], f"ready rng0 rng {self.dir}/rng0.sock")

    def test_activated_for_nobody(self):
        """A socket that no device takes is an error, as is one for a device that has another."""
        for device, why in (("rng,id=a", "passed socket 'x' (descriptor 4): no device has id=x"),
                            ("rng,id=a,socket=/x", "rng: id=a: descriptor 3 passed, but the device has another socket")):
            prefix, more = self.activate(["a", "x"])
            result = subprocess.run([*prefix, VIODEV, "serve", "--dir", self.dir, device], capture_output=True,
                                    text=True, timeout=WAIT, **more)
            self.assertEqual((result.returncode, result.stderr), (2, f"viodev: {why}\n"))
            for name in "s0", "s1":
                os.unlink(self.tmp / name)

    @unittest.skipUnless(shutil.which("systemd-socket-activate"), "there is no systemd-socket-activate")
    def test_activated_by_systemd(self):
        """systemd's own program starts it when the first front-end is there."""
        path = self.tmp / "s"
        process = subprocess.Popen(["systemd-socket-activate", "-l", path, VIODEV, "serve", "--dir", self.dir, "--once",
                                    "--transport=vhost-user", "rng"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            sock = wait_for(lambda: self.connect_once_listening(path), "the socket")
            self.greet(sock)
            sock.close()
            status, out, _ = self.output(process)
            self.assertEqual((status, out), (0, f"ready rng0 rng {path}\nready\n"))
        finally:
            process.kill()

    def test_every_type(self):
        """Each device serves one front-end after another, also when one goes without a word, and when it is killed."""
        second = shutil.copy(self.image, self.tmp / "second.raw")
        types = {"block": self.block, "net": "net,backend=null", "console": f"console,console=file:{self.tmp}/out",
                 "scsi": f"scsi,lun0={second}", "rng": "rng", "9p": f"9p,path={self.tmp}", "input": "input,kind=mouse"}
        with self.vhost(*types.values()):
            for name in (f"{type}0" for type in types):
                with self.subTest(name):
                    for _ in range(2):
                        sock = self.connect_to(self.dir / f"{name}.sock")
                        self.greet(sock)
                        sock.close()
                    sock = self.connect_to(self.dir / f"{name}.sock")
                    self.greet(sock)
                    pid = self.status(name)["pid"]
                    os.kill(pid, signal.SIGKILL)
                    self.assertEqual(sock.recv(1), b"")
                    self.greet(self.connect_to(self.dir / f"{name}.sock"))
                    self.assertNotEqual(self.status(name)["pid"], pid)

    def test_capabilities(self):
        """--print-capabilities of each type, whatever else is said."""
        features = {"block": ["blk-file", "read-only"], "input": ["evdev-path"]}
        for type in "block", "net", "console", "scsi", "rng", "9p", "input":
            expected = {"type": type, **({"features": features[type]} if type in features else {})}
            status, out, _ = self.output(self.backend(type, "--fd", "77", "--print-capabilities", "--unknown"))
            self.assertEqual((status, json.loads(out)), (0, expected))
            result = viodev("serve", "--print-capabilities", type)
            self.assertEqual((result.returncode, json.loads(result.stdout)), (0, expected))

    def test_back_end_program(self):
        """vhost-user-block as libvirt starts it: by descriptor or path, until the front-end goes or SIGTERM."""
        ours, theirs = socket.socketpair()
        process = self.backend("block", f"--fd={theirs.fileno()}", f"--blk-file={self.image}", "--read-only",
                               "serial=x", pass_fds=[theirs.fileno()])
        theirs.close()
        self.greet(ours)
        ours.close()
        self.assertEqual(self.output(process)[::2], (0, ""))

        path = self.tmp / "s,1"
        process = self.backend("block", "--socket-path", str(path), f"--blk-file={self.image}")
        self.assertEqual(process.stdout.readline(), f"ready block0 block {path}\n")
        self.greet(self.connect_to(path))
        process.terminate()
        self.assertEqual(self.output(process)[::2], (0, ""))
        self.assertFalse(path.exists())

    def test_back_end_usage(self):
        rows = [
            ("block", ["--blk-file=/x"], "vhost-user-block: give one of --socket-path=PATH and --fd=N"),
            ("block", ["--fd=3", "--socket-path=/x"], "vhost-user-block: give one of --socket-path=PATH and --fd=N"),
            ("blok", [], "blok: no such device type: did you mean 'block'?"),
            ("block", ["--fd=x"], "vhost-user-block: --fd=x: must be a file descriptor number"),
            ("block", ["--socket-path=/x", "--blk-file=/nonexistent"],
             "block: path=/nonexistent: No such file or directory"),
        ]
        for type, args, error in rows:
            with self.subTest(args=args):
                self.assertEqual(self.output(self.backend(type, *args)), (2, "", f"viodev: {error}\n"))


class Cost(Case):
    NAMES = "rng0", "block0", "console0", "input0"

    def devices(self):
        return "rng", self.block, f"console,console=pty,port.one=unix:{self.tmp}/one", "input,kind=keyboard"

    def test_idle(self):
        """Nobody wakes up when there is nothing to do."""
        with self.serve(*self.devices()) as serve:
            pids = [serve.process.pid, *(self.status(name)["pid"] for name in self.NAMES)]
            wait_asleep(*pids, seconds=2)

    def test_memory(self):
        if SANITIZED:
            self.skipTest("a sanitizer's build is bigger")
        with self.serve(*self.devices()):
            for name in self.NAMES:
                smaps = pathlib.Path(f"/proc/{self.status(name)['pid']}/smaps_rollup").read_text()
                private = sum(int(line.split()[1]) for line in smaps.splitlines() if line.startswith("Private"))
                self.assertLess(private, 3072, name)

    def test_start(self):
        if SANITIZED:
            self.skipTest("a sanitizer's build is slower")
        for _ in range(200):  # others may hold it up, but not every time
            start = time.monotonic()
            with self.serve("rng"):
                took = time.monotonic() - start
            if took < 0.02:
                return
        self.fail(f"at last it took {took} s")
