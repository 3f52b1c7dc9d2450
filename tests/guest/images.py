# SPDX-License-Identifier: BSD-2-Clause
"""Disk images that firmware boots from, made without any tool but the assembler."""

import pathlib
import struct
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SECTOR = 512


def pad(data, unit):
    return data + bytes(-len(data) % unit)


def blank(path, mib):
    """An empty sparse image; returns its path."""
    with open(path, "wb") as file:
        file.truncate(mib << 20)
    return path


# --- a CD-ROM -------------------------------------------------------------------------------------------------------

def both(number, size):
    """ISO 9660 writes numbers in both byte orders."""
    return number.to_bytes(size, "little") + number.to_bytes(size, "big")


def iso_record(name, sector, length, flags):
    record = both(sector, 4) + both(length, 4) + bytes((126, 1, 1, 0, 0, 0, 0)) + bytes((flags, 0, 0)) + both(1, 2) + \
        bytes((len(name),)) + name
    record = pad(bytes((len(record) + 2, 0)) + record, 2)
    return bytes((len(record),)) + record[1:]


def iso(path, label, text, extra=0):
    """An ISO 9660 disc with one file, README.TXT, and so many bytes behind all else; its path."""
    root, table, content = 20, 18, 21
    end = content + -(-len(text) // 2048)
    folder = iso_record(b"\0", root, 2048, 2) + iso_record(b"\1", root, 2048, 2) + \
        iso_record(b"README.TXT;1", content, len(text), 0)
    volume = b"\1CD001\1\0" + b"".ljust(32) + label.encode().ljust(32) + bytes(8) + both(end, 4) + bytes(32) + \
        both(1, 2) + both(1, 2) + both(2048, 2) + both(10, 4) + table.to_bytes(4, "little") + bytes(4) + \
        (table + 1).to_bytes(4, "big") + bytes(4) + iso_record(b"\0", root, 2048, 2) + b" " * 623 + bytes(68) + b"\1"
    tables = [b"\1\0" + root.to_bytes(4, order) + (1).to_bytes(2, order) + b"\0\0" for order in ("little", "big")]
    with open(path, "wb") as file:
        file.write(bytes(16 * 2048))
        for sector in volume, b"\xffCD001\1", *tables, folder, text:
            file.write(pad(sector, 2048))
        file.write(b"e" * extra)
    return path


# --- for SeaBIOS: a boot sector of our own that loads Linux ---------------------------------------------------------

# Where things go in the guest's memory, and where in the kernel's header that is said (Linux, x86/boot.rst).
SETUP, COMMAND_LINE, KERNEL, INITRD = 0x90000, 0x9e000, 0x100000, 0x8000000
PIECES_OFFSET = 0x1b0
MAX_SETUP_SECTORS = 64  # what fits below the heap's end


def boot_sector():
    with tempfile.TemporaryDirectory(prefix="viodev-boot.") as folder:
        source, linked, binary = str(HERE / "boot.S"), f"{folder}/boot.o", f"{folder}/boot"
        subprocess.run(["as", "--32", "-o", linked, source], check=True)
        subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "-e", "start", "--oformat", "binary", "-o", binary,
                        linked], check=True)
        data = pathlib.Path(binary).read_bytes()
    assert len(data) == SECTOR
    return bytearray(data)


def linux_disk(path, kernel, initrd, command_line, mib=64):
    """An image whose boot sector starts this kernel."""
    kernel, initrd = pathlib.Path(kernel).read_bytes(), pathlib.Path(initrd).read_bytes()
    setup_bytes = (kernel[0x1f1] + 1) * SECTOR
    setup, body = bytearray(kernel[:setup_bytes]), kernel[setup_bytes:]
    assert setup[0x202:0x206] == b"HdrS" and setup_bytes <= MAX_SETUP_SECTORS * SECTOR
    setup[0x210] = 0xff  # a loader without a number
    setup[0x211] |= 0x80  # the heap may be used
    struct.pack_into("<I", setup, 0x218, INITRD)
    struct.pack_into("<I", setup, 0x21c, len(initrd))
    struct.pack_into("<H", setup, 0x224, 0xde00)
    struct.pack_into("<I", setup, 0x228, COMMAND_LINE)

    sector = boot_sector()
    blank(path, mib)
    with open(path, "r+b") as file:
        lba = 8
        pieces = [(setup, SETUP), (command_line.encode() + b"\0", COMMAND_LINE), (body, KERNEL), (initrd, INITRD)]
        for index, (data, address) in enumerate(pieces):
            data = pad(data, SECTOR)
            file.seek(lba * SECTOR)
            file.write(data)
            struct.pack_into("<III", sector, PIECES_OFFSET + 12 * index, lba, len(data) // SECTOR, address)
            lba += len(data) // SECTOR
        file.seek(0)
        file.write(sector)
    return path


# --- for OVMF: a FAT file system ------------------------------------------------------------------------------------

FAT_CLUSTER = 2048
FAT_ROOT_ENTRIES = 512


def fat_disk(path, files, mib=48):
    """An image with a FAT16 file system (no partitions) that holds these files, {"NAME.EXT": bytes}."""
    total = mib * 2048
    fat_sectors = 4 * mib  # two bytes for each cluster of four sectors, and some
    root = 1 + 2 * fat_sectors
    first = root + FAT_ROOT_ENTRIES * 32 // SECTOR
    header = bytearray(SECTOR)
    struct.pack_into("<3s8sHBHBHHBHHHIIBBBI11s8s", header, 0, b"\xeb\x3c\x90", b"viodev  ", SECTOR,
                     FAT_CLUSTER // SECTOR, 1, 2, FAT_ROOT_ENTRIES, 0, 0xf8, fat_sectors, 63, 255, 0, total, 0x80, 0,
                     0x29, 0x76696f64, b"VIODEV     ", b"FAT16   ")
    header[510:] = b"\x55\xaa"

    table, entries, cluster = [0xfff8, 0xffff], b"", 2
    blank(path, mib)
    with open(path, "r+b") as file:
        for name, data in files.items():
            stem, _, extension = name.partition(".")
            count = -(-len(data) // FAT_CLUSTER)
            entries += struct.pack("<8s3sB14sHI", stem.ljust(8).encode(), extension.ljust(3).encode(), 0x20, bytes(14),
                                   cluster if count else 0, len(data))
            table += [*range(cluster + 1, cluster + count), 0xffff] if count else []
            file.seek(first * SECTOR + (cluster - 2) * FAT_CLUSTER)
            file.write(data)
            cluster += count
        file.seek(0)
        file.write(header)
        for copy in range(2):
            file.seek((1 + copy * fat_sectors) * SECTOR)
            file.write(struct.pack(f"<{len(table)}H", *table))
        file.seek(root * SECTOR)
        file.write(entries)
    assert len(table) * 2 <= fat_sectors * SECTOR and len(entries) <= FAT_ROOT_ENTRIES * 32
    return path
