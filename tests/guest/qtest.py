# SPDX-License-Identifier: BSD-2-Clause
"""A guest without a CPU: QEMU's qtest accelerator lets a test read and write ports and memory as a guest would.

    with Qtest(t, vfio_user_device(path)) as q:
        driver = Driver(Function(q, slot=1))
        driver.start()
        driver.offer(0, [(address, 64, WRITE)])
        driver.kick(0)
        id, length = driver.used(0)
"""

import socket
import struct
import time

from vm import PATIENCE

ALL_ONES = {1: 0xff, 2: 0xffff, 4: 0xffffffff, 8: 0xffffffffffffffff}
FORMAT = {1: "B", 2: "H", 4: "I", 8: "Q"}
SUFFIX = {1: "b", 2: "w", 4: "l", 8: "q"}

# Where things are put, all of it below what q35 and pc use themselves.
MEMORY_BARS, PORT_BARS = 0xc0000000, 0xc000
RINGS, RING_STRIDE, BUFFERS = 0x100000, 0x10000, 0x400000
RAM_END = 64 << 20

NEXT, WRITE, INDIRECT = 1, 2, 4  # descriptor flags, virtio 2.7.5
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET = 1, 2, 4, 8, 0x40  # device status, 2.1
VERSION_1 = 1 << 32
NO_VECTOR = 0xffff

# Structures that the capabilities name, 4.1.4.
COMMON, NOTIFY, ISR, DEVICE, WINDOW = 1, 2, 3, 4, 5

# Registers of the common configuration, 4.1.4.3, and of the legacy header, 4.1.4.10: offset, size.
MODERN_REGISTERS = {
    "device_feature_select": (0, 4), "device_feature": (4, 4), "driver_feature_select": (8, 4),
    "driver_feature": (12, 4), "config_vector": (16, 2), "num_queues": (18, 2), "status": (20, 1),
    "generation": (21, 1), "queue_select": (22, 2), "queue_size": (24, 2), "queue_vector": (26, 2),
    "queue_enable": (28, 2), "queue_notify_off": (30, 2), "queue_desc": (32, 8), "queue_driver": (40, 8),
    "queue_device": (48, 8),
}
LEGACY_REGISTERS = {
    "device_feature": (0, 4), "driver_feature": (4, 4), "queue_pfn": (8, 4), "queue_size": (12, 2),
    "queue_select": (14, 2), "queue_notify": (16, 2), "status": (18, 1), "isr": (19, 1), "config_vector": (20, 2),
    "queue_vector": (22, 2),
}


class Qtest:
    """The machine; use it in a `with` statement."""

    def __init__(self, t, *devices, machine="q35"):
        path = t.tmp / "qtest"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            self.guest = t.guest(*devices, "-qtest", f"unix:{path}", "-qtest-log", "none", machine=machine,
                                 memory=f"{RAM_END >> 20}M", accel="qtest", boot="disk")
            listener.settimeout(PATIENCE)
            self._socket = listener.accept()[0]
        self._socket.settimeout(PATIENCE)
        self._text = b""

    def commands(self, lines):
        """Sends commands without waiting for each answer; the values of all answers."""
        answers, lines = [], list(lines)
        for start in range(0, len(lines), 200):  # what surely fits into the socket
            part = lines[start : start + 200]
            self._socket.sendall("".join(line + "\n" for line in part).encode())
            answers += [self._answer() for _ in part]
        return answers

    def command(self, line):
        return self.commands([line])[0]

    def _answer(self):
        while b"\n" not in self._text:
            data = self._socket.recv(65536)
            if not data:
                raise AssertionError(f"QEMU ended\n{self.guest.messages}")
            self._text += data
        line, self._text = self._text.split(b"\n", 1)
        words = line.decode().split()
        assert words[0] == "OK", f"qtest: {line}"
        return words[1] if len(words) > 1 else None

    def port_read(self, port, size):
        return int(self.command(f"in{SUFFIX[size]} {port:#x}"), 0)

    def port_write(self, port, size, value):
        self.command(f"out{SUFFIX[size]} {port:#x} {value & ALL_ONES[size]:#x}")

    def read(self, address, length):
        return bytes.fromhex(self.command(f"read {address:#x} {length:#x}")[2:])

    def write(self, address, data):
        self.command(f"write {address:#x} {len(data):#x} 0x{data.hex()}")

    def word(self, address, size=2):
        """Reads a register in memory, as one access."""
        return int(self.command(f"read{SUFFIX[size]} {address:#x}"), 0)

    def set_word(self, address, value, size=2):
        self.command(f"write{SUFFIX[size]} {address:#x} {value & ALL_ONES[size]:#x}")

    def __enter__(self):
        self.guest.__enter__()
        return self

    def __exit__(self, *error):
        self._socket.close()
        self.guest.__exit__(*error)


class Function:
    """A PCI function: gives its BARs addresses and finds its virtio structures."""

    def __init__(self, qtest, slot):
        self.qtest = qtest
        self.slot = slot
        self.bars = {}  # index: (is port, address, size)
        self.structures = {}  # kind: (bar, offset, length)
        self.capabilities = {}  # id: offset of the first
        self.notify_multiplier = 0
        assert self.config_read(0, 2) == 0x1af4, f"no virtio function in slot {slot}"
        self.set_up()

    def set_up(self):
        """As firmware does; also what a system reset makes necessary again."""
        self._place_bars()
        self.config_write(4, 2, 7)  # decode ports and memory, be master
        self._find_structures()

    def config_read(self, offset, size):
        self.qtest.port_write(0xcf8, 4, 1 << 31 | self.slot << 11 | offset & 0xfc)
        return self.qtest.port_read(0xcfc + offset % 4, size)

    def config_write(self, offset, size, value):
        self.qtest.port_write(0xcf8, 4, 1 << 31 | self.slot << 11 | offset & 0xfc)
        self.qtest.port_write(0xcfc + offset % 4, size, value)

    def _place_bars(self):
        index = 0
        while index < 6:
            offset = 0x10 + 4 * index
            self.config_write(offset, 4, 0xffffffff)
            mask = self.config_read(offset, 4)
            if mask & 1:
                address, size = PORT_BARS + 0x400 * self.slot, -(mask & 0xfffc) & 0xffff
                self.bars[index] = True, address, size
                self.config_write(offset, 4, address)
            elif mask:
                address = MEMORY_BARS + (self.slot << 20) + (index << 16)
                self.bars[index] = False, address, -(mask & ~0xf) & 0xffffffff
                self.config_write(offset, 4, address)
                if mask & 4:
                    index += 1
                    self.config_write(offset + 4, 4, 0)
            index += 1

    def _find_structures(self):
        self.capabilities = {}
        at = self.config_read(0x34, 1)
        for _ in range(48):
            if not at:
                return
            id, following = self.config_read(at, 1), self.config_read(at + 1, 1)
            self.capabilities.setdefault(id, at)
            if id == 9:
                kind, bar = self.config_read(at + 3, 1), self.config_read(at + 4, 1)
                self.structures.setdefault(kind, (bar, self.config_read(at + 8, 4), self.config_read(at + 12, 4)))
                if kind == NOTIFY:
                    self.notify_multiplier = self.config_read(at + 16, 4)
                if kind == WINDOW:
                    self.window = at
            at = following
        raise AssertionError("the list of capabilities has no end")

    def access(self, bar, offset, size, value=None):
        """The qtest command for an access."""
        is_port, address, _ = self.bars[bar]
        value_text = "" if value is None else f" {value & ALL_ONES[size]:#x}"
        if is_port:
            return f"{'in' if value is None else 'out'}{SUFFIX[size]} {address + offset:#x}{value_text}"
        return f"{'read' if value is None else 'write'}{SUFFIX[size]} {address + offset:#x}{value_text}"

    def bar_read(self, bar, offset, size):
        return int(self.qtest.command(self.access(bar, offset, size)), 0)

    def bar_write(self, bar, offset, size, value):
        self.qtest.command(self.access(bar, offset, size, value))

    def msix(self, on):
        """Turns MSI-X on or off, every vector's message being a write of 0x5600 + vector to RAM: msix_seen()."""
        capability = self.capabilities[0x11]
        table = self.config_read(capability + 4, 4)
        if on:
            for vector in range(self.vectors()):
                entry = self.bars[table & 7][1] + (table & ~7) + 16 * vector
                self.qtest.write(entry, struct.pack("<QII", self.msix_word(vector), 0x5600 + vector, 0))
        self.config_write(capability + 2, 2, 0x8000 if on else 0)

    def vectors(self):
        return (self.config_read(self.capabilities[0x11] + 2, 2) & 0x7ff) + 1

    def msix_word(self, vector):
        return BUFFERS - 0x1000 + 4 * vector

    def msix_seen(self, vector, wait=PATIENCE):
        """Whether the vector's message arrived; clears it."""
        deadline = time.monotonic() + wait
        while not self.qtest.word(self.msix_word(vector), 4):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        self.qtest.set_word(self.msix_word(vector), 0, 4)
        return True


class Driver:
    """A virtio driver, by the modern or the legacy interface. One chain at a time, from descriptor 0 on."""

    def __init__(self, function, legacy=False):
        self.function = function
        self.qtest = function.qtest
        self.legacy = legacy
        self.registers = LEGACY_REGISTERS if legacy else MODERN_REGISTERS
        self.sizes = {}
        self.positions = {}
        self.features = 0

    def _place(self, name):
        offset, size = self.registers[name]
        if self.legacy:
            return 0, offset, size
        bar, base, _ = self.function.structures[COMMON]
        return bar, base + offset, size

    def get(self, name):
        bar, offset, size = self._place(name)
        return self.function.bar_read(bar, offset, size)

    def set(self, name, value):
        bar, offset, size = self._place(name)
        if size == 8:  # as two halves, 4.1.3.1
            self.function.bar_write(bar, offset, 4, value)
            self.function.bar_write(bar, offset + 4, 4, value >> 32)
        else:
            self.function.bar_write(bar, offset, size, value)

    def reset(self):
        self.set("status", 0)
        deadline = time.monotonic() + PATIENCE
        while self.get("status"):
            assert time.monotonic() < deadline, "the reset does not end"

    def offered(self):
        if self.legacy:
            return self.get("device_feature")
        self.set("device_feature_select", 0)
        low = self.get("device_feature")
        self.set("device_feature_select", 1)
        return self.get("device_feature") << 32 | low

    def start(self, features=VERSION_1, queues=1, ok=True):
        """Resets and initialises the device (3.1.1): `queues` of them, with these features where they are offered."""
        self.reset()
        self.set("status", ACKNOWLEDGE)
        self.set("status", ACKNOWLEDGE | DRIVER)
        self.features = features & self.offered()
        if self.legacy:
            self.set("driver_feature", self.features)
            status = ACKNOWLEDGE | DRIVER
        else:
            for half in range(2):
                self.set("driver_feature_select", half)
                self.set("driver_feature", self.features >> 32 * half)
            status = ACKNOWLEDGE | DRIVER | FEATURES_OK
            self.set("status", status)
            assert self.get("status") == status, "FEATURES_OK was refused"
        for queue in range(queues):
            self.set_queue(queue)
        if ok:
            self.set("status", status | DRIVER_OK)

    def ring(self, queue):
        """Addresses of descriptors, available and used ring: one block, as the legacy interface wants it (2.7.2)."""
        size, base = self.sizes[queue], RINGS + queue * RING_STRIDE
        return base, base + 16 * size, (base + 18 * size + 6 + 4095) & ~4095

    def set_queue(self, queue):
        self.set("queue_select", queue)
        self.sizes[queue] = self.get("queue_size")
        self.positions[queue] = [0, 0]  # next available, next used
        assert self.sizes[queue], f"there is no queue {queue}"
        descriptors, available, used = self.ring(queue)
        self.qtest.command(f"memset {descriptors:#x} {RING_STRIDE:#x} 0")
        if self.legacy:
            self.set("queue_pfn", descriptors >> 12)
        else:
            self.set("queue_desc", descriptors)
            self.set("queue_driver", available)
            self.set("queue_device", used)
            self.set("queue_enable", 1)

    def descriptor(self, queue, index, address, length, flags=0, next=0):
        self.qtest.write(self.ring(queue)[0] + 16 * index, struct.pack("<QIHH", address, length, flags, next))

    def available(self, queue, head):
        """Offers a chain that is in the table."""
        ring, position = self.ring(queue)[1], self.positions[queue]
        self.qtest.set_word(ring + 4 + 2 * (position[0] % self.sizes[queue]), head)
        position[0] = position[0] + 1 & 0xffff
        self.qtest.set_word(ring + 2, position[0])

    def offer(self, queue, chain, first=0):
        """Puts a chain of (address, length, flags) into the table, from descriptor `first` on, and offers it."""
        for index, (address, length, flags) in enumerate(chain):
            flags |= NEXT if index + 1 < len(chain) else 0
            self.descriptor(queue, first + index, address, length, flags, first + index + 1)
        self.available(queue, first)

    def kick(self, queue):
        if self.legacy:
            self.set("queue_notify", queue)
            return
        bar, offset, _ = self.function.structures[NOTIFY]
        self.set("queue_select", queue)
        self.function.bar_write(bar, offset + self.get("queue_notify_off") * self.function.notify_multiplier, 2, queue)

    def used(self, queue, wait=PATIENCE):
        """The next used entry, (id, length), or None when there is none in time."""
        ring, position = self.ring(queue)[2], self.positions[queue]
        deadline = time.monotonic() + wait
        while self.qtest.word(ring + 2) == position[1]:
            if time.monotonic() > deadline:
                return None
        entry = self.qtest.read(ring + 4 + 8 * (position[1] % self.sizes[queue]), 8)
        position[1] = position[1] + 1 & 0xffff
        return struct.unpack("<II", entry)

    def config_read(self, offset, size):
        if self.legacy:
            return self.function.bar_read(0, 20 + offset, size)  # MSI-X off
        bar, base, _ = self.function.structures[DEVICE]
        return self.function.bar_read(bar, base + offset, size)
