# SPDX-License-Identifier: BSD-2-Clause
"""Guests under QEMU and the viodev that serves them, for tests. Python's standard library alone.

    with Viodev("build/viodev", "rng,id=r0") as viodev, Guest(vfio_user_device(viodev.socket("r0"))) as guest:
        guest.check("dd if=/dev/hwrng of=/dev/null bs=1k count=1")

Every wait has a limit, and what is raised carries the end of the guest's console and of the programs' messages.
"""

import ctypes
import json
import os
import pathlib
import queue
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import uuid

TAIL_LINES = 40
PATIENCE = 180  # seconds; what is waited for takes a few, on a machine that is busy some tens
SANITIZER = re.compile(r"ERROR: \w+Sanitizer|WARNING: \w+Sanitizer|runtime error:")

# Each of these takes time from an emulated boot and shows nothing about a device: watching the clock, self-tests of
# ciphers, mitigations, waiting for grace periods.
QUICK_BOOT = (
    "tsc=reliable no_timer_check nowatchdog audit=0 mitigations=off rcupdate.rcu_expedited=1 cryptomgr.notests "
    "initcall_blacklist=jent_mod_init,crypto_kdf108_init"
)


class GuestError(Exception):
    """A guest, QEMU or viodev did not do what it should."""


class Skip(unittest.SkipTest):
    """Raised by a test that cannot run here; the text says why."""


def default_kit():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("VIODEV_KIT") or os.path.join(cache, "viodev", "kit")


def vfio_user_device(path, **properties):
    """QEMU's arguments for the device that a vfio-user server offers on this socket."""
    device = {"driver": "vfio-user-pci", "socket": {"type": "unix", "path": str(path)}, **properties}
    return ["-device", json.dumps(device)]


def tail(text, lines=TAIL_LINES):
    return "\n".join(text.rstrip().splitlines()[-lines:])


def die_with_parent():
    """Runs in a child before exec: a test runner that is killed leaves no guest behind."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def flatten(args):
    for arg in args:
        if isinstance(arg, (list, tuple)):
            yield from flatten(arg)
        else:
            yield str(arg)


class Guest:
    """A virtual machine, running from its creation on; use it in a `with` statement.

    devices   QEMU arguments: strings, or lists of them as vfio_user_device() gives
    machine   "q35", "pc", with options if wanted ("q35,i8042=off"); cpu, cpus, accel
    memory    its size; backend is "memfd" (shared, what vfio-user wants), "none" (plain -m), or an -object of your own
              without id and size ("memory-backend-ram,share=off")
    firmware  "seabios" or "ovmf"
    boot      "kernel": the kit's Linux with the command service; "disk": whatever the firmware finds (no run());
              "paused": as kernel, but the vCPUs wait for qmp("cont") and wait_ready()
    kernel    of the kit's two: "vmlinux" starts a second sooner, but each reset writes its segments into memory again,
              also the one that ends S3; "vmlinuz" wakes up, and is an EFI program
    tools     Debian's programs (fio, mkfs.ext4, lspci, ...) besides busybox; costs a second. "devel": git, a compiler
              and stress-ng as well, which want memory="1G"
    modules   list of modules to load, [] for none; by default those for the virtio devices present
    append    more for the kernel command line
    timeout   seconds until the command service must answer
    """

    def __init__(self, *devices, kit=None, machine="q35", cpu="max", cpus=1, accel="tcg", memory="512M",
                 backend="memfd", firmware="seabios", boot="kernel", kernel=None, tools=False, modules=None, append="",
                 timeout=PATIENCE):
        self._prepare(kit or default_kit(), timeout)
        kernel = kernel or ("vmlinuz" if firmware == "ovmf" else "vmlinux")
        try:
            console, console_fd = self._socketpair()
            self._control, control_fd = self._socketpair()
            self._qmp, qmp_fd = self._socketpair()
            self.command = [
                os.path.join(self.kit, "bin", "qemu-system-x86_64"),
                "-nodefaults", "-display", "none", "-no-reboot", "-accel", accel, "-cpu", cpu, "-smp", str(cpus),
                *self._memory(machine, memory, backend), *self._firmware(firmware),
                *(self._kernel(kernel, tools, modules, append) if boot != "disk" else []),
                *(["-S"] if boot == "paused" else []),
                "-chardev", f"socket,id=console,fd={console_fd}", "-serial", "chardev:console",
                "-chardev", f"socket,id=control,fd={control_fd}", "-serial", "chardev:control",
                "-chardev", f"socket,id=qmp,fd={qmp_fd}", "-qmp", "chardev:qmp",
                *flatten(devices),
            ]
            self._start((console_fd, control_fd, qmp_fd))
            self._follow(console)
            self._qmp_reply(time.monotonic() + PATIENCE)  # the greeting
            self.qmp("qmp_capabilities")
            if boot == "kernel":
                self.wait_ready()
        except BaseException:
            self.kill()
            raise

    def _prepare(self, kit, timeout):
        self.kit = kit
        self.timeout = timeout
        self.boot_seconds = None
        self._console = bytearray()
        self._control_text = b""
        self._qmp_text = b""
        self._events = []
        self._stopped = False
        self._dir = tempfile.mkdtemp(prefix="viodev-guest.")
        self._messages = tempfile.TemporaryFile()  # not in the folder: readable after the end
        self._files = []
        self._reader = None
        self.process = None

    # --- what tests use

    def run(self, command, timeout=PATIENCE):
        """Runs a shell command (of any number of lines) in the guest: (exit status, what it printed)."""
        token = uuid.uuid4().hex
        deadline = time.monotonic() + timeout
        what = f"the guest's answer to: {command}"
        self._send(self._control, f"{token}\n{command}\n{token}\n".encode(), deadline, what)
        self._until(re.compile(rb"%s\+\n" % token.encode()), deadline, what)
        output, match = self._until(re.compile(rb"\n%s=(\d+)\n" % token.encode()), deadline, what)
        return int(match.group(1)), output.decode(errors="replace")

    def check(self, command, timeout=PATIENCE):
        """Runs a command that must succeed, and returns what it printed."""
        status, output = self.run(command, timeout)
        if status:
            raise self._error(f"exit status {status} in the guest: {command}\n{tail(output)}")
        return output

    def qmp(self, command, arguments=None, timeout=PATIENCE, **more):
        """A QMP command's result: guest.qmp("device_add", driver="virtio-rng-pci", id="r")."""
        message = {"execute": command, "arguments": {**(arguments or {}), **more}}
        deadline = time.monotonic() + timeout
        self._send(self._qmp, json.dumps(message).encode(), deadline, f"QMP {command}")
        while True:
            reply = self._qmp_reply(deadline, f"QMP {command}")
            if "return" in reply:
                return reply["return"]
            if "error" in reply:
                raise self._error(f"QMP {command}: {reply['error'].get('desc', reply['error'])}")
            self._events.append(reply)

    def wait_event(self, name, timeout=PATIENCE):
        """The next QMP event of this name since the last call; earlier ones of other names are dropped."""
        deadline = time.monotonic() + timeout
        while True:
            while self._events:
                event = self._events.pop(0)
                if event.get("event") == name:
                    return event
            self._events.append(self._qmp_reply(deadline, f"the event {name}"))

    def reset(self, how="qmp", timeout=None):
        """Starts the guest again: by system_reset, or how="guest": by the guest's own reboot. Waits until it serves."""
        self.qmp("set-action", reboot="reset")  # -no-reboot is for panics
        self._events.clear()
        self._control_text = b""
        if how == "guest":
            self._send(self._control, b"r\nreboot -f\nr\n", time.monotonic() + PATIENCE, "reboot")
        else:
            self.qmp("system_reset")
        self.wait_event("RESET")
        self.wait_ready(timeout)
        self.qmp("set-action", reboot="shutdown")

    def wake(self):
        """Input for the command service, which ignores it: wakes a guest whose ttyS1 may do so."""
        self._send(self._control, b"\n", time.monotonic() + PATIENCE, "a wake-up")

    def wait_ready(self, timeout=None):
        """Waits until the guest takes commands."""
        start = time.monotonic()
        self._until(re.compile(rb"\nviodev-ready\n"), start + (timeout or self.timeout), "the guest to come up")
        self.boot_seconds = time.monotonic() - start

    def wait(self, timeout=PATIENCE):
        """Waits for QEMU to end (the guest powered off or panicked); its exit status. The console is whole then."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._error(f"QEMU still runs after {timeout} s") from None
        self._reader.join(timeout)
        return status

    @property
    def console(self):
        """All that firmware and kernel wrote to the console so far."""
        return bytes(self._console).decode(errors="replace").replace("\r", "")

    @property
    def messages(self):
        """What QEMU itself wrote to standard error."""
        size = os.fstat(self._messages.fileno()).st_size
        return os.pread(self._messages.fileno(), size, 0).decode(errors="replace")

    def kill(self):
        """Ends it at once. Harmless when it has ended."""
        if self._stopped:
            return
        if self.process:
            self.process.kill()
            self.process.wait()
        self._stopped = True
        for file in self._files:
            file.close()
        shutil.rmtree(self._dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is not None and not isinstance(error, (GuestError, Skip)):
            error.add_note(self._report())
        self.kill()

    # --- QEMU's arguments

    def _memory(self, machine, memory, backend):
        if backend == "none":
            return ["-machine", machine, "-m", memory]
        if backend == "memfd":
            backend = "memory-backend-memfd,share=on"
        return ["-object", f"{backend},id=mem,size={memory}", "-machine", f"{machine},memory-backend=mem", "-m", memory]

    def _firmware(self, firmware):
        if firmware == "seabios":
            return []
        if firmware != "ovmf":
            raise ValueError(f"firmware {firmware!r}")
        variables = os.path.join(self._dir, "vars.fd")
        shutil.copy(os.path.join(self.kit, "OVMF_VARS.fd"), variables)
        code = os.path.join(self.kit, "OVMF_CODE.fd")
        return ["-drive", f"if=pflash,format=raw,readonly=on,file={code}",
                "-drive", f"if=pflash,format=raw,file={variables}"]

    def _kernel(self, kernel, tools, modules, append):
        initrd = os.path.join(self.kit, "initrd.cpio")
        if tools:
            initrd = self._join("initrd.cpio", "tools.cpio", *(["devel.cpio"] if tools == "devel" else []))
        words = ["console=ttyS0 quiet panic=-1 viodev.tty=ttyS1", QUICK_BOOT]
        if modules is not None:
            words.append("viodev.modules=" + (",".join(modules) or "none"))
        return ["-kernel", os.path.join(self.kit, kernel), "-initrd", initrd, "-append", " ".join([*words, append])]

    def _join(self, *names):
        """An archive of these of the kit."""
        joined = os.path.join(self._dir, "initrd.cpio")
        with open(joined, "wb") as out:
            for name in names:
                with open(os.path.join(self.kit, name), "rb") as part:
                    shutil.copyfileobj(part, out, 1 << 20)
        return joined

    # --- sockets and processes

    def _socketpair(self):
        """A socket for us and the number of the descriptor that QEMU inherits."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._files += [ours, theirs]
        return ours, theirs.fileno()

    def _start(self, fds, **more):
        try:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self._messages,
                                            stderr=self._messages, pass_fds=fds, preexec_fn=die_with_parent, **more)
        except OSError as error:
            raise GuestError(f"cannot start QEMU: {error}; scripts/kit.sh makes the guest kit") from None
        # Only QEMU may hold its ends, or its death would go unnoticed here.
        for file in self._files:
            if file.fileno() in fds:
                file.close()

    def _follow(self, console):
        self._reader = threading.Thread(target=self._read_console, args=(console,), daemon=True)
        self._reader.start()

    def _read_console(self, console):
        try:
            while select.select([console], [], [])[0]:
                data = console.recv(65536)
                if not data:
                    return
                self._console += data
        except (OSError, ValueError):
            pass  # closed by kill()

    def _send(self, sock, data, deadline, what):
        while data:
            if not select.select([], [sock], [], max(0, deadline - time.monotonic()))[1]:
                raise self._error(f"timeout: {what} (cannot send)")
            try:
                data = data[sock.send(data):]
            except OSError:
                raise self._ended(what) from None

    def _receive(self, sock, deadline, what):
        if not select.select([sock], [], [], max(0, deadline - time.monotonic()))[0]:
            raise self._error(f"timeout: waited for {what}")
        try:
            data = sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            raise self._ended(what)
        return data

    def _until(self, pattern, deadline, what):
        """Reads the command service up to the pattern: (text before it, match)."""
        parts, found = self._control_text, None
        try:
            searched = 0
            while not (found := pattern.search(parts, searched)):
                searched = max(0, len(parts) - 100)  # a marker is shorter than that and may come in pieces
                parts += self._receive(self._control, deadline, what)
            return parts[: found.start()], found
        finally:
            self._control_text = parts[found.end():] if found else parts

    def _qmp_reply(self, deadline, what="QMP"):
        while b"\n" not in self._qmp_text:
            self._qmp_text += self._receive(self._qmp, deadline, what)
        line, self._qmp_text = self._qmp_text.split(b"\n", 1)
        return json.loads(line)

    # --- reports

    def _report(self):
        return (f"--- console, last lines\n{tail(self.console)}\n--- QEMU's messages\n{tail(self.messages)}\n"
                f"--- QEMU's command line\n{shlex.join(self.command)}")

    def _error(self, text):
        return GuestError(f"{text}\n{self._report()}")

    def _ended(self, what):
        return self._error(f"QEMU ended with status {self.wait()}: waited for {what}")


class Viodev:
    """A running `viodev serve`; use it in a `with` statement. Leaving it normally checks that it ends as it should."""

    def __init__(self, binary, *devices, dir=None, options=(), env=None, fds=(), timeout=PATIENCE):
        self.binary = str(binary)
        self._own_dir = None if dir else tempfile.mkdtemp(prefix="viodev.")  # short: a socket's path has 107 bytes
        self.dir = str(dir or self._own_dir)
        self.sockets = {}
        self.types = {}
        self._lines = queue.Queue()
        self._errors = tempfile.TemporaryFile()
        self.process = None
        try:
            self.process = subprocess.Popen(
                [self.binary, "serve", f"--dir={self.dir}", *options, *devices], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=self._errors, env={**os.environ, **(env or {})}, pass_fds=fds,
                preexec_fn=die_with_parent)
            threading.Thread(target=self._read_lines, args=(self.process.stdout,), daemon=True).start()
            self._wait_ready(timeout)
        except BaseException:
            self.kill()
            raise

    def socket(self, id):
        """The path of a device's socket."""
        return self.sockets[id]

    def built(self, name):
        """The path of a program of the same build, such as tests/guest/fsx."""
        return pathlib.Path(self.binary).resolve().parents[2] / name

    def ctl(self, id, *words, timeout=PATIENCE):
        """Runs `viodev ctl DIR/ID.ctl WORDS...`, which must succeed; what it printed."""
        command = [self.binary, "ctl", os.path.join(self.dir, f"{id}.ctl"), *map(str, words)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                              timeout=timeout, check=False)
        if done.returncode:
            raise self._error(f"status {done.returncode}: {' '.join(command)}\n{done.stdout}{done.stderr}")
        return done.stdout

    @property
    def messages(self):
        """What it wrote to standard error so far."""
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), size, 0).decode(errors="replace")

    def stop(self, timeout=PATIENCE, status=0):
        """Ends it with SIGTERM; raises if it does not end, ends with another status, or a sanitizer reported."""
        self.process.send_signal(signal.SIGTERM)
        try:
            ended = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._error(f"viodev still runs {timeout} s after SIGTERM") from None
        if ended != status:
            raise self._error(f"viodev ended with status {ended}, not {status}")
        if SANITIZER.search(self.messages):
            raise self._error("a sanitizer reported")

    def kill(self):
        """Ends it at once and removes its folder. Harmless when it has ended."""
        if self.process:
            self.process.kill()
            self.process.wait()
        if self._own_dir:
            shutil.rmtree(self._own_dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            if error is None and self.process.poll() is None:
                self.stop()
            elif error is not None and not isinstance(error, Skip):
                error.add_note(self._report())
        finally:
            self.kill()

    def _wait_ready(self, timeout):
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise self._error(f"viodev is not ready after {timeout} s") from None
            if line is None:
                raise self._error(f"viodev ended with status {self.process.wait()} before it was ready")
            if line == "ready":
                return
            if line.startswith("ready "):
                _, id, type, path, *_ = line.split(" ")  # pseudo terminals follow
                self.sockets[id], self.types[id] = path, type

    def _read_lines(self, stdout):
        for line in stdout:
            self._lines.put(line.decode(errors="replace").rstrip("\n"))
        self._lines.put(None)

    def _report(self):
        return f"--- viodev's messages\n{tail(self.messages, 100)}"

    def _error(self, text):
        return GuestError(f"{text}\n{self._report()}")
