# SPDX-License-Identifier: BSD-2-Clause
"""Front-ends of a few lines: a driver of one queue, over vfio-user (by the legacy registers) or over vhost-user, with
guest memory in a memfd. A chain is a list of pieces: bytes for the device to read, or the length of what it writes."""

import mmap
import os
import socket
import struct
import time

PAGE = 4096
MEMORY = 1 << 20
BASE = 1 << 20  # the guest's address of it
BUFFERS = MEMORY // 2  # where buffers begin; the ring lies at 0


class Dropped(Exception):
    """The server has closed the connection."""


class Frontend:
    size = 16
    bytes = MEMORY

    def __init__(self, path, timeout):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        self.sock.connect(str(path))
        self.memfd = os.memfd_create("guest")
        os.ftruncate(self.memfd, self.bytes)
        self.memory = mmap.mmap(self.memfd, self.bytes)
        self.added = 0
        self.call = os.eventfd(0, os.EFD_NONBLOCK)

    def close(self):
        self.sock.close()
        self.memory.close()
        os.close(self.memfd)
        os.close(self.call)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def receive(self, length):
        try:
            data = self.sock.recv(length, socket.MSG_WAITALL)
        except ConnectionResetError:
            data = b""
        if len(data) != length:
            raise Dropped
        return data

    def await_dropped(self):
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass

    def layout(self):
        """Offsets of the available and the used ring."""
        avail = 16 * self.size
        return avail, (avail + 6 + 2 * self.size + PAGE - 1) // PAGE * PAGE

    def add(self, chain):
        """Offers a chain; its first descriptor is 0, so there is one at a time."""
        avail, _ = self.layout()
        at = BUFFERS
        for i, piece in enumerate(chain):
            writable = isinstance(piece, int)
            length = piece if writable else len(piece)
            if not writable:
                self.memory[at:at + length] = piece
            flags = (i + 1 < len(chain)) | (2 if writable else 0)
            struct.pack_into("<QIHH", self.memory, 16 * i, BASE + at, length, flags, i + 1)
            at += length
        struct.pack_into("<H", self.memory, avail + 4 + 2 * (self.added % self.size), 0)
        self.added += 1
        struct.pack_into("<H", self.memory, avail + 2, self.added & 0xffff)

    def used(self):
        """How many chains have come back."""
        return struct.unpack_from("<H", self.memory, self.layout()[1] + 2)[0]


class VfioUser(Frontend):
    BAR0, CONFIG = 0, 7

    def __init__(self, path, timeout):
        super().__init__(path, timeout)
        self.message = 0
        caps = b'{"capabilities":{"max_msg_fds":8}}\0'
        self.command(1, struct.pack("<HH", 0, 1) + caps)
        self.command(2, struct.pack("<IIQQQ", 32, 3, 0, BASE, self.bytes), [self.memfd])
        self.write(self.CONFIG, 4, 2, 7)  # decode, and master the bus

    def command(self, command, payload, fds=()):
        self.send(command, payload, fds)
        return self.reply()

    def send(self, command, payload, fds=(), flags=0):
        self.message += 1
        header = struct.pack("<HHIII", self.message & 0xffff, command, 16 + len(payload), flags, 0)
        try:
            socket.send_fds(self.sock, [header + payload], list(fds))
        except (BrokenPipeError, ConnectionResetError):
            raise Dropped from None

    def reply(self):
        _, _, size, flags, error = struct.unpack("<HHIII", self.receive(16))
        payload = self.receive(size - 16)
        if flags & 0x20:
            raise OSError(error, os.strerror(error))
        return payload

    def write(self, region, offset, size, value):
        self.command(10, struct.pack("<QII", offset, region, size) + value.to_bytes(size, "little"))

    def read(self, region, offset, size):
        return int.from_bytes(self.command(9, struct.pack("<QII", offset, region, size))[16:], "little")

    def start(self, queue=0):
        for status in 0, 1, 3:
            self.write(self.BAR0, 18, 1, status)
        self.queue = queue
        self.write(self.BAR0, 14, 2, queue)
        self.size = self.read(self.BAR0, 12, 2)
        self.write(self.BAR0, 8, 4, BASE // PAGE)
        self.write(self.BAR0, 18, 1, 7)

    def kick(self):
        # Without an answer, which a device that is dropped would not give.
        self.send(10, struct.pack("<QII", 16, self.BAR0, 2) + self.queue.to_bytes(2, "little"), flags=0x10)


class P9(VfioUser):
    """A 9P client that has mounted, as the user 0."""

    NOFID = 0xffffffff

    def __init__(self, path, timeout):
        super().__init__(path, timeout)
        self.timeout = timeout
        self.start()
        self.call9(100, struct.pack("<I", 8192) + self.string("9P2000.L"))
        self.call9(104, struct.pack("<II", 0, self.NOFID) + self.string("") * 2 + struct.pack("<I", 0))

    @staticmethod
    def string(text):
        return struct.pack("<H", len(text)) + text.encode()

    def call9(self, type, body):
        """The body of the reply; OSError for Rlerror."""
        request = struct.pack("<IBH", 7 + len(body), type, 0) + body
        done, end = self.used(), time.monotonic() + self.timeout
        self.add([request, 4096])
        self.kick()
        while self.used() == done:
            if time.monotonic() > end:
                raise TimeoutError(f"9P request {type}")
            time.sleep(0.01)
        at = BUFFERS + len(request)
        size, replied, _ = struct.unpack_from("<IBH", self.memory, at)
        reply = self.memory[at + 7:at + size]
        if replied == 7:
            raise OSError(*struct.unpack("<I", reply), "Rlerror")
        return reply

    def owner(self, name):
        """The user of a file in the root, None if there is no such file."""
        try:
            self.call9(110, struct.pack("<IIH", 0, 1, 1) + self.string(name))
        except FileNotFoundError:
            return None
        attributes = self.call9(24, struct.pack("<IQ", 1, 0x7ff))
        self.call9(120, struct.pack("<I", 1))
        return struct.unpack_from("<I", attributes, 8 + 13 + 4)[0]


class VhostUser(Frontend):
    def __init__(self, path, timeout):
        super().__init__(path, timeout)
        self.doorbell = os.eventfd(0)
        self.message(3)
        self.message(2, struct.pack("<Q", 1 << 32))
        self.message(5, struct.pack("<IIQQQQ", 1, 0, BASE, self.bytes, BASE, 0), [self.memfd])

    def close(self):
        super().close()
        os.close(self.doorbell)

    def message(self, request, payload=b"", fds=()):
        try:
            socket.send_fds(self.sock, [struct.pack("<III", request, 1, len(payload)) + payload], list(fds))
        except (BrokenPipeError, ConnectionResetError):
            raise Dropped from None

    def start(self, queue=0):
        avail, used = self.layout()
        self.message(8, struct.pack("<II", queue, self.size))
        self.message(10, struct.pack("<II", queue, 0))
        self.message(9, struct.pack("<IIQQQQ", queue, 0, BASE, BASE + used, BASE + avail, 0))
        self.message(13, struct.pack("<Q", queue), [self.call])
        self.message(12, struct.pack("<Q", queue), [self.doorbell])

    def kick(self):
        os.eventfd_write(self.doorbell, 1)
