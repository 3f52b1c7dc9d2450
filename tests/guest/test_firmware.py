# SPDX-License-Identifier: BSD-2-Clause
"""Firmware drives the devices before Linux does, and hands them over in the state in which it left them."""

import contextlib
import functools
import hashlib
import http.server
import os
import pathlib
import re
import select
import shutil
import struct
import subprocess
import threading
import time
import zlib

import images
import vm
from checks import attach, digest, status

COMMAND_LINE = f"console=ttyS0 quiet panic=-1 viodev.tty=ttyS1 {vm.QUICK_BOOT}"

# The shell does not tell under which number it finds a file system.
STARTUP = f"""@echo -off
for %i run (0 3)
  if exist fs%i:\\second.txt then
    type fs%i:\\second.txt
  endif
endfor
for %i run (0 3)
  if exist fs%i:\\vmlinuz.efi then
    fs%i:
    vmlinuz.efi initrd=\\initrd {COMMAND_LINE}
  endif
endfor
"""


def first_digest(path):
    return hashlib.md5(path.read_bytes()[:4 << 20]).hexdigest()


def boot_by_seabios(t, mode, machine):
    disk = images.linux_disk(t.tmp / "disk.raw", f"{t.kit}/vmlinuz", f"{t.kit}/initrd.cpio", COMMAND_LINE)
    with t.serve(f"block,id=disk,path={disk},mode={mode}", f"rng,id=rng,mode={mode}") as viodev:
        with t.guest(attach(viodev), machine=machine, boot="disk") as guest:
            guest.wait_ready()
            t.say(f"commands after {guest.boot_seconds:.1f} s")
            assert "boot sector: starting Linux" in guest.console
            # hostile D22: Linux takes over what firmware has used.
            assert digest(guest, "/dev/vda") == first_digest(disk)
            guest.check("head -c 1000 /dev/hwrng >/dev/null")
            guest.reset()  # and firmware what Linux has used
            assert guest.console.count("boot sector: starting Linux") == 2
            guest.check("dd if=/dev/vda of=/dev/null bs=1M count=4")
        assert status(viodev, "disk")["driver-errors"] == 0


def test_seabios_legacy(t):
    """SeaBIOS boots Linux from a legacy disk, twice: 21 MB through INT 13h each time, by a boot sector of our own."""
    boot_by_seabios(t, "legacy", "pc")


def test_seabios_modern(t):
    """SeaBIOS boots Linux from a modern disk, twice."""
    boot_by_seabios(t, "modern", "q35")


def test_ovmf(t):
    """OVMF boots Linux from a modern disk, reads a transitional one as a legacy one, and meets an entropy source."""
    kernel, initrd = (pathlib.Path(f"{t.kit}/{name}").read_bytes() for name in ("vmlinuz", "initrd.cpio"))
    disk = images.fat_disk(t.tmp / "disk.raw", {"STARTUP.NSH": STARTUP.replace("\n", "\r\n").encode(),
                                                "VMLINUZ.EFI": kernel, "INITRD": initrd})
    second = images.fat_disk(t.tmp / "second.raw", {"SECOND.TXT": b"read from the second disk\r\n"})
    with t.serve(f"block,id=disk,path={disk},mode=modern", f"block,id=second,path={second},mode=transitional",
                 "rng,id=rng,mode=modern") as viodev:
        with t.guest(attach(viodev), firmware="ovmf", boot="disk") as guest:
            guest.wait_ready()
            t.say(f"commands after {guest.boot_seconds:.1f} s")
            assert "read from the second disk" in guest.console
            guest.check("ls -d /sys/firmware/efi")
            for number, path in enumerate((disk, second)):
                assert digest(guest, f"/dev/vd{'ab'[number]}") == first_digest(path)
            assert guest.check("head -c 1000 /dev/hwrng | wc -c") == "1000\n"
        for id in viodev.sockets:
            assert status(viodev, id)["driver-errors"] == 0


@contextlib.contextmanager
def web_server(folder):
    """The files of a folder by HTTP; the port."""
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


def ipxe_rom(t, path, device):
    """A copy of the kit's iPXE for this PCI device: firmware runs it for no other one."""
    source = pathlib.Path(f"{t.kit}/root/usr/share/qemu/pxe-virtio.rom")
    if not source.exists():
        raise vm.Skip("no iPXE in the kit, which has this machine's own QEMU")
    rom = bytearray(source.read_bytes())
    header = struct.unpack_from("<H", rom, 0x18)[0]
    assert rom[header:header + 4] == b"PCIR"
    total = sum(rom)
    struct.pack_into("<H", rom, header + 6, device)
    rom[6] = (rom[6] + total - sum(rom)) & 0xff  # all bytes of it add up to 0
    path.write_bytes(rom)
    return str(path)


def boot_by_ipxe(t, mode, device):
    """DHCP names a script, which TFTP brings, and the initramfs; HTTP brings the kernel."""
    folder = t.tmp / "tftp"
    folder.mkdir()
    for path in t.tmp, folder:
        path.chmod(0o755)  # the device is nobody
    shutil.copy(f"{t.kit}/initrd.cpio", folder)
    rom = ipxe_rom(t, t.tmp / "rom", device)
    with web_server(t.kit) as port:
        (folder / "boot.ipxe").write_text(
            f"#!ipxe\nkernel http://10.0.2.2:{port}/vmlinuz {COMMAND_LINE}\ninitrd initrd.cpio\nboot\n")
        with t.serve(f"net,id=nic,mode={mode},backend=user,tftp={folder},bootfile=boot.ipxe") as viodev:
            with t.guest(attach(viodev, romfile=rom, bootindex=1), boot="disk") as guest:
                guest.wait_ready()
                t.say(f"commands after {guest.boot_seconds:.1f} s")
                # Linux takes over what iPXE has used.
                guest.check("ip link set eth0 up; udhcpc -i eth0 -n -q -f -t 20 -s /bin/true")
            assert status(viodev, "nic")["driver-errors"] == 0, status(viodev, "nic")


def test_ipxe_legacy(t):
    """iPXE, on a legacy card, boots Linux over TFTP and HTTP."""
    boot_by_ipxe(t, "legacy", 0x1000)


def test_ipxe_modern(t):
    """iPXE, on a modern card, boots Linux over TFTP and HTTP."""
    boot_by_ipxe(t, "modern", 0x1041)


UBOOT = "/usr/lib/u-boot/qemu-x86/u-boot.rom"
UBOOT_ADDRESS = 0x2000000


class UBoot:
    """U-Boot's command line, on QEMU's serial port."""

    def __init__(self, kit, devices):
        self._output = b""
        self._qemu = subprocess.Popen(
            [f"{kit}/bin/qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-accel", "tcg", "-m", "256M",
             "-object", "memory-backend-memfd,share=on,id=mem,size=256M", "-machine", "pc,memory-backend=mem",
             "-serial", "stdio", "-bios", UBOOT, *(word for device in devices for word in device)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=vm.die_with_parent)

    def expect(self, text):
        deadline = time.monotonic() + vm.PATIENCE
        while text not in self._output:
            left = deadline - time.monotonic()
            readable = left > 0 and select.select([self._qemu.stdout], [], [], left)[0]
            data = os.read(self._qemu.stdout.fileno(), 4096) if readable else b""
            if not data:
                raise vm.GuestError(f"U-Boot did not say {text}: {self._output.decode(errors='replace')}")
            self._output += data
        before, self._output = self._output.split(text, 1)
        return before.decode(errors="replace")

    def _send(self, text):
        self._qemu.stdin.write(text.encode())
        self._qemu.stdin.flush()

    def wait_ready(self):
        self.expect(b"Hit any key")
        self._send(" ")
        self.expect(b"=> ")

    def run(self, command):
        self._send(command + "\r")
        return self.expect(b"=> ")

    def crc32(self, length):
        """Of what was read to UBOOT_ADDRESS."""
        self._send(f"crc32 {UBOOT_ADDRESS:#x} {length:#x}\r")
        self.expect(b"==> ")  # which looks like a prompt
        return int(re.match(r" *([0-9a-f]{8})", self.expect(b"=> "))[1], 16)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._qemu.kill()
        self._qemu.wait()


def test_uboot(t):
    """U-Boot reads legacy and modern disks, and a file over a modern card and TFTP; whole."""
    if not pathlib.Path(UBOOT).exists():
        raise vm.Skip("no u-boot-qemu")
    mib = 1 << 20
    folder = t.tmp / "tftp"
    folder.mkdir()
    for path in t.tmp, folder:
        path.chmod(0o755)  # the device is nobody
    contents = [os.urandom(2 * mib) for _ in range(3)]
    disks = [t.tmp / f"disk{i}" for i in range(2)]
    for path, data in zip((*disks, folder / "file"), contents):
        path.write_bytes(data)
    with t.serve(f"block,id=old,path={disks[0]},mode=legacy", f"block,id=new,path={disks[1]},mode=modern",
                 f"net,id=nic,mode=modern,backend=user,tftp={folder}") as viodev:
        with UBoot(t.kit, attach(viodev)) as uboot:
            uboot.wait_ready()
            uboot.run("virtio scan")
            for i, data in enumerate(contents[:2]):
                assert "is now current device" in uboot.run(f"virtio dev {i}")
                assert "blocks read: OK" in uboot.run(f"virtio read {UBOOT_ADDRESS:#x} 0 {2 * mib // 512:#x}")
                assert uboot.crc32(2 * mib) == zlib.crc32(data)
            uboot.run("setenv autoload no")
            assert "10.0.2.15" in uboot.run("dhcp")
            assert "Bytes transferred" in uboot.run(f"tftpboot {UBOOT_ADDRESS:#x} 10.0.2.2:file")
            assert uboot.crc32(2 * mib) == zlib.crc32(contents[2])
        for id in viodev.sockets:
            assert status(viodev, id)["driver-errors"] == 0, status(viodev, id)
