# SPDX-License-Identifier: BSD-2-Clause
"""Hostile drivers, through a real QEMU but without a guest: registers and rings abused by its qtest accelerator.

Rows carry the ids of docs/spec/hostile.md and docs/spec/conformance.md. After each of them the device must serve a
new driver as if nothing had been, in the same process, with no more memory and descriptors.
"""

import contextlib
import os
import random
import struct
import time

from checks import Health, attach, image
from qtest import (ACKNOWLEDGE, BUFFERS, COMMON, DEVICE, DRIVER, DRIVER_OK, FEATURES_OK, INDIRECT, ISR,
                   LEGACY_REGISTERS, MODERN_REGISTERS, NEEDS_RESET, NEXT, NO_VECTOR, NOTIFY, RAM_END, RINGS, VERSION_1,
                   WRITE, Driver, Function, Qtest)
from vm import PATIENCE

SECTOR = 512
DISK_MIB = 4
DISK_SECTORS = DISK_MIB * 2048
PATTERN = bytes(range(256)) * 2

# Requests, their answers and feature bits of the block device, virtio 5.2.
IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2
F_FLUSH, F_DISCARD, F_WRITE_ZEROES, F_INDIRECT = 1 << 9, 1 << 13, 1 << 14, 1 << 28

# Where a request's parts are put.
HEADER, STATUS, TABLE, DATA = BUFFERS, BUFFERS + 0x100, BUFFERS + 0x1000, BUFFERS + 0x10000

DEVICES = [  # options, and by which interfaces it is driven
    ("block,mode=modern", [False]),
    ("block,mode=transitional", [False, True]),
    ("block,mode=legacy", [True]),
    ("rng,mode=transitional", [False, True]),
]


class Subject:
    """A device driven by one of its interfaces."""

    def __init__(self, function, legacy, kind, name, health, scribble):
        self.driver = Driver(function, legacy)
        self.function, self.qtest = function, function.qtest
        self.kind, self.name, self.legacy, self.health, self.scribble = kind, name, legacy, health, scribble
        self.disk = None

    def start(self, features=0, **options):
        self.driver.start(features | VERSION_1, **options)

    def block(self, type, sector, *data, header_parts=None, status=(STATUS, 1, WRITE)):
        """Offers a request; data as (address, length, flags)."""
        self.qtest.write(HEADER, struct.pack("<IIQ", type, 0, sector))
        self.qtest.write(STATUS, b"\xff")
        self.driver.offer(0, [*(header_parts or [(HEADER, 16, 0)]), *data, *([status] if status else [])])
        self.driver.kick(0)

    def answer(self):
        """The block device's answer to the request before: (status, used length)."""
        used = self.driver.used(0)
        assert used, f"{self.name}: no answer"
        return self.qtest.read(STATUS, 1)[0], used[1]

    def works(self):
        """A new driver initialises the device and is served."""
        self.start()
        self.qtest.write(DATA, bytes(SECTOR))
        if self.kind == "rng":
            self.driver.offer(0, [(DATA, 64, WRITE)])
            self.driver.kick(0)
            used = self.driver.used(0)
            assert used and 1 <= used[1] <= 64, f"{self.name}: {used}"
            assert self.qtest.read(DATA, 64) != bytes(64)
        else:
            self.block(IN, 1, (DATA, SECTOR, WRITE))
            assert self.answer() == (OK, SECTOR + 1), self.name
            if not self.scribble:
                assert self.qtest.read(DATA, SECTOR) == PATTERN, f"{self.name}: not what is on the disk"

    def ended(self):
        """How the device took what was offered: "reset" when it wants one, "used", or "silent"."""
        deadline = time.monotonic() + (0.03 if self.legacy else PATIENCE)
        while time.monotonic() < deadline:
            if self.driver.used(0, wait=0):
                return "used"
            if self.driver.get("status") & NEEDS_RESET:
                return "reset"
        return "silent"


@contextlib.contextmanager
def subjects(t, scribble=False):
    """Serves DEVICES and gives the list of subjects; at the end all must work, the disks be unchanged (or may not)."""
    disks = [image(t.tmp / f"{number}.raw", DISK_MIB, PATTERN) for number in range(len(DEVICES))]
    texts = [f"{text},id=d{number}" + (f",path={disks[number]}" if text.startswith("block") else "")
             for number, (text, _) in enumerate(DEVICES)]
    with t.serve(*texts) as viodev:
        devices = [attach(viodev, f"d{number}", addr=f"{number + 2:x}") for number in range(len(DEVICES))]
        with Qtest(t, *devices) as qtest:
            all_of_them = []
            for number, (text, interfaces) in enumerate(DEVICES):
                function, health = Function(qtest, number + 2), None
                for legacy in interfaces:
                    name = f"{text} by its {'legacy' if legacy else 'modern'} interface"
                    subject = Subject(function, legacy, text.split(",")[0], name, health, scribble)
                    subject.disk = disks[number] if subject.kind == "block" else None
                    subject.works()
                    health = subject.health = subject.health or Health(viodev, f"d{number}")
                    all_of_them.append(subject)
            yield all_of_them
            for subject in all_of_them:
                subject.works()
                subject.health.check()
    for disk in disks:
        assert scribble or disk.read_bytes() == PATTERN * DISK_SECTORS, "a disk was changed"


# --- what a driver that behaves sees --------------------------------------------------------------------------------

def test_interrupts(t):
    """MSIX-03, MSIX-07, MSIX-09, MSIX-11, ISR-03, ISR-05: messages as mapped, none without a vector; the ISR."""
    with subjects(t) as all_of_them:
        for subject in all_of_them:
            driver, function = subject.driver, subject.function

            def request():
                driver.offer(0, [(DATA, 64, WRITE)])
                driver.kick(0)
                assert driver.used(0)

            def start(vector):
                subject.start(ok=False)
                driver.set("queue_vector", vector)
                assert driver.get("queue_vector") == vector
                driver.set("status", driver.get("status") | DRIVER_OK)

            if subject.kind != "rng":
                def request():
                    subject.block(IN, 0, (DATA, SECTOR, WRITE))
                    assert subject.answer() == (OK, SECTOR + 1)

            function.msix(True)
            for vector in 0, 1:
                start(vector)
                request()
                assert function.msix_seen(vector), f"{subject.name}: no message {vector}"
            start(NO_VECTOR)
            request()
            assert not function.msix_seen(0, 0.05) and not function.msix_seen(1, 0), subject.name
            for wrong in function.vectors(), 0x1234, 0xfffe:  # hostile S11, D33, F6
                driver.set("queue_vector", wrong)
                assert driver.get("queue_vector") == NO_VECTOR, f"{subject.name}: vector {wrong:#x}"
                driver.set("config_vector", wrong)
                assert driver.get("config_vector") == NO_VECTOR
            function.msix(False)

            subject.start()
            read_isr(subject)
            request()
            deadline = time.monotonic() + PATIENCE
            while not (isr := read_isr(subject)):
                assert time.monotonic() < deadline, f"{subject.name}: ISR stays 0"
            assert isr == 1 and read_isr(subject) == 0


def read_isr(subject):
    if subject.legacy:
        return subject.driver.get("isr")
    bar, offset, _ = subject.function.structures[ISR]
    return subject.function.bar_read(bar, offset, 1)


# --- registers ------------------------------------------------------------------------------------------------------

def queue_sizes(s):
    """hostile S1, S2, S12: sizes that are no size; queues that do not exist."""
    d = s.driver
    s.start(ok=False, queues=0)
    d.set("queue_select", 0)
    most = d.get("queue_size")
    for queue in 0xffff, 0x8000, 64, 9:
        d.set("queue_select", queue)
        assert d.get("queue_size") == 0, f"{s.name}: queue {queue} has a size"
        if not s.legacy:
            d.set("queue_size", 8)
            d.set("queue_enable", 1)
            assert d.get("queue_enable") == 0
    d.set("queue_select", 0)
    assert d.get("queue_size") == most
    if s.legacy:
        d.set("queue_size", 8)  # hostile S1: read-only here
        assert d.get("queue_size") == most
        return
    for size in 0, 3, most * 2, 1024, 0x8000, 0xffff:
        d.set("queue_size", size)
        assert 1 <= d.get("queue_size") <= most or size == 0, f"{s.name}: size {size}"
    d.set("queue_size", 0)
    d.set("queue_enable", 1)
    d.kick(0)
    d.set("status", ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
    d.kick(0)


def live_queue(s):
    """hostile S3, F5: size and addresses change while the queue is live, without effect."""
    d = s.driver
    s.start()
    if s.legacy:
        d.set("queue_pfn", 0xfffff)
        d.set("driver_feature", 0xffffffff)
    else:
        size = d.get("queue_size")
        for name, value in (("queue_size", 8), ("queue_desc", 1 << 40), ("queue_driver", 1 << 40),
                            ("queue_device", 1 << 40), ("driver_feature", 0)):
            d.set(name, value)
        assert d.get("queue_size") == size and d.get("queue_desc") == d.ring(0)[0]
    if s.kind == "rng":
        d.offer(0, [(DATA, 64, WRITE)])
        d.kick(0)
        assert d.used(0), s.name
    else:
        s.block(IN, 0, (DATA, SECTOR, WRITE))
        assert s.answer()[0] == OK, s.name


def early_doorbells(s):
    """hostile S24, Q1, K11, NTF-05: doorbells of every queue before any is there."""
    d, f = s.driver, s.function
    d.reset()
    for _ in range(2):
        if s.legacy:
            for queue in 0, 1, 2, 63, 0x7fff, 0x8000, 0xfffe, 0xffff:
                d.set("queue_notify", queue)
        else:
            bar, offset, length = f.structures[NOTIFY]
            for at_byte in range(length + 8):
                for size in 1, 2, 4, 8:
                    f.bar_write(bar, offset + at_byte, size, 0xffffffffffffffff)
        d.set("status", ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)  # hostile S24: with nothing negotiated


def rings_nowhere(s):
    """hostile S25, SPLIT-29: rings in a hole, misaligned, at the end of memory, wrapping."""
    d = s.driver
    for address in 0, 0x80000000, 0xfffffffffffff000, RAM_END - 16, RAM_END - 4096, RINGS + 1, (1 << 44) - 4096:
        s.start(ok=False, queues=0)
        d.set("queue_select", 0)
        if s.legacy:
            d.set("queue_pfn", address >> 12)
        else:
            for name in "queue_desc", "queue_driver", "queue_device":
                d.set(name, address)
            d.set("queue_enable", 1)
        d.set("status", d.get("status") | DRIVER_OK)
        d.kick(0)
        d.get("status")


def refused_features(s):
    """hostile S21, FEAT-03, FEAT-10: bits that were not offered are refused, and none changes later."""
    if s.legacy:
        return
    d = s.driver
    offered = d.offered()
    for wrong in [1 << bit for bit in range(64) if not offered >> bit & 1] + [0]:
        d.reset()
        d.set("status", ACKNOWLEDGE | DRIVER)
        for half in range(2):
            d.set("driver_feature_select", half)
            d.set("driver_feature", ((VERSION_1 if wrong else 0) | wrong) >> 32 * half)
        d.set("status", ACKNOWLEDGE | DRIVER | FEATURES_OK)
        assert not d.get("status") & FEATURES_OK, f"{s.name}: {wrong:#x} was accepted"


def config_window(s):
    """hostile S4: through the window in configuration space, proper and absurd places."""
    f = s.function
    if COMMON not in f.structures:
        return
    s.works()
    bar, offset, _ = f.structures[COMMON]

    def look(bar, offset, length, size=4, value=None):
        f.config_write(f.window + 4, 1, bar)
        f.config_write(f.window + 8, 4, offset)
        f.config_write(f.window + 12, 4, length)
        if value is not None:
            f.config_write(f.window + 16, size, value)
        return f.config_read(f.window + 16, size)

    expected = s.driver.get("status") if not s.legacy else Driver(f).get("status")
    assert look(bar, offset + MODERN_REGISTERS["status"][0], 1, 1) == expected, s.name
    for bad_bar in 0, 1, 3, 5, 6, 255:
        for length in 0, 1, 2, 3, 4, 8, 0xffffffff:
            for place in 0, 20, 0xfffffffc, 0xffffffff:
                look(bad_bar, place, length, value=0xffffffff)
    for length in 0, 3, 8, 0xffffffff:
        look(bar, offset + 20, length, value=0xffffffff)


def device_config(s):
    """hostile S20, K6, K7, D30, CFG-03: every byte of the device's configuration and beyond, at each width."""
    f = s.function
    s.works()
    if s.legacy:
        places = [(0, 20, f.bars[0][2] - 20)]
    else:
        places = [f.structures[kind] for kind in (DEVICE,) if kind in f.structures]
    for bar, offset, length in places:
        lines = []
        for at in range(length):
            for size in (1, 2, 4) if s.legacy else (1, 2, 4, 8):
                lines += [f.access(bar, offset + at, size, 0xa5a5a5a5a5a5a5a5), f.access(bar, offset + at, size)]
        s.qtest.commands(lines)


def config_space(s):
    """PCI: every place of configuration space is read at each width; what is read-only stays."""
    f = s.function
    before = [f.config_read(at, 4) for at in (0, 8, 0x2c, 0x34, 0x3c)]
    for at in range(256):
        for size in 1, 2, 4:
            if at % 4 + size <= 4:
                f.config_read(at, size)
    for at in 0, 8, 0x2c, 0x34, 0x3e:
        f.config_write(at, 2, 0x5a5a)
    # The capabilities of virtio, of which the window alone takes writes.
    for at in range(0x40, 0x100, 4):
        if not any(start <= at < start + 24 for start in (f.capabilities.get(0x11, 999), f.capabilities.get(5, 999))):
            f.config_write(at, 4, 0xffffffff)
    assert [f.config_read(at, 4) for at in (0, 8, 0x2c, 0x34, 0x3c)] == before, s.name


def bus_master(s):
    """PCI 6.2.2: QEMU passes Bus Master on; a kick while it is off is served when it is on again."""
    s.start()
    for _ in range(2):
        s.function.config_write(4, 2, 3)
        if s.kind == "rng":
            s.driver.offer(0, [(DATA, 64, WRITE)])
            s.driver.kick(0)
        else:
            s.block(IN, 0, (DATA, SECTOR, WRITE))
        assert not s.driver.used(0, 0.2), f"{s.name}: DMA without Bus Master"
        s.function.config_write(4, 2, 7)
        assert s.driver.used(0), f"{s.name}: the request is lost"


REGISTER_ROWS = [queue_sizes, live_queue, early_doorbells, rings_nowhere, refused_features, config_window,
                 device_config, config_space, bus_master]


def test_registers(t):
    """Registers at wrong times, with wrong values, in wrong places: hostile S1-S4, S11, S12, S20, S21, S24, S25."""
    with subjects(t) as all_of_them:
        for subject in all_of_them:
            for row in REGISTER_ROWS:
                start = time.monotonic()
                row(subject)
                subject.works()
                t.say(f"{subject.name}: {row.__doc__} ({time.monotonic() - start:.2f} s)")
            subject.health.check()


def test_every_offset(t):
    """hostile S5, S26, CFG-04: random values at every offset of the registers and at each width, in random order."""
    seed = 20250
    with subjects(t) as all_of_them:
        for subject in all_of_them:
            rng, f = random.Random(seed), subject.function
            bar, length = (0, f.bars[0][2]) if subject.legacy else (f.structures[COMMON][0], None)
            if length:
                offsets = list(range(length + 4))
            else:
                size = f.bars[bar][2]
                edges = {start + n for _, start, length in f.structures.values() for n in range(min(length, 64) + 8)}
                edges |= {size - n for n in range(1, 9)} | {rng.randrange(size) for _ in range(200)}
                offsets = sorted(at for at in edges if at < size)
            accesses = [(at, width) for at in offsets for width in ((1, 2, 4) if subject.legacy else (1, 2, 4, 8))]
            rng.shuffle(accesses)
            t.say(f"{subject.name}: {len(accesses)} places, seed {seed}")
            for state in "reset", "live":
                if state == "live":
                    subject.works()
                else:
                    subject.driver.reset()
                lines = []
                for at, width in accesses:
                    value = rng.choice((0, 1, 0xff, 0xffff, rng.getrandbits(64), 0xffffffffffffffff))
                    lines += [f.access(bar, at, width, value), f.access(bar, at, width)]
                subject.qtest.commands(lines)
            subject.works()
            subject.health.check()


# --- rings ----------------------------------------------------------------------------------------------------------

def bar_of(subject, index):
    """The address of one of the device's own memory BARs."""
    bars = subject.function.bars
    return bars.get(index, bars[1])[1]


def table(*entries):
    """An indirect table: (address, length, flags, next) each."""
    return b"".join(struct.pack("<QIHH", *entry) for entry in entries)


# What each device refuses: name, chain. Flags and `next` that offer() would not write come as a list of descriptors.
CHAINS = [
    ("hostile S7, K12, SPLIT-27: straddles the end of memory", lambda s: [(RAM_END - 8, 4096, WRITE)]),
    ("hostile S7: in a hole", lambda s: [(0x80000000, SECTOR, WRITE)]),
    ("hostile S7: wraps", lambda s: [(0xffffffffffffff00, SECTOR, WRITE)]),
    ("hostile S7: at the last byte of the address space", lambda s: [(0xffffffffffffffff, 1, WRITE)]),
    ("hostile D17: unmapped in the middle", lambda s: [(HEADER, 16, 0), (0x80000000, 16, 0), (STATUS, 1, WRITE)]),
    ("hostile Q13, Q14: the device's own registers", lambda s: [(bar_of(s, 2), 64, WRITE)]),
    ("hostile Q13: the device's own MSI-X table", lambda s: [(bar_of(s, 1), 64, WRITE)]),
    ("hostile S9: writable before readable", lambda s: [(DATA, 16, WRITE), (HEADER, 16, 0), (STATUS, 1, WRITE)]),
    ("hostile D28: more than 2^32 bytes", lambda s: [(0x1000, 0xffffffff, WRITE)] * 3),
]

INDIRECT_TABLES = [
    ("hostile S6: the table is unmapped", 0xfffffffffffff000, 16, b""),
    ("hostile S6: the table straddles the end of memory", RAM_END - 16, 64, b""),
    ("SPLIT-25: an empty table", TABLE, 0, b""),
    ("SPLIT-25: not a multiple of 16", TABLE, 17, table((DATA, 16, WRITE, 0), (DATA, 16, WRITE, 0))),
    ("hostile Q25, SPLIT-25: a table in a table", TABLE, 32, table((TABLE, 32, INDIRECT, 0), (DATA, 16, WRITE, 0))),
    ("hostile D12, SPLIT-24: a loop in the table", TABLE, 32, table((DATA, 16, NEXT, 1), (DATA, 16, NEXT, 0))),
    ("SPLIT-23: next outside of the table", TABLE, 32, table((DATA, 16, NEXT, 2), (DATA, 16, WRITE, 0))),
    ("SPLIT-23: next 0xffff", TABLE, 32, table((DATA, 16, NEXT, 0xffff), (DATA, 16, WRITE, 0))),
    ("hostile S7: unmapped in the table", TABLE, 16, table((0x80000000, 16, WRITE, 0))),
    ("hostile S15d: a table of 4 GiB", TABLE, 0xfffffff0, table((DATA, 16, WRITE, 0))),
]

DESCRIPTORS = [  # of (index, address, length, flags, next); head is 0
    ("hostile Q25: a descriptor that is its own next", [(0, DATA, 16, NEXT, 0)]),
    ("hostile Q25, SPLIT-24: a loop of two", [(0, DATA, 16, NEXT, 1), (1, DATA, 16, NEXT, 0)]),
    ("hostile Q25: a loop of writables", [(0, DATA, 16, NEXT | WRITE, 1), (1, DATA, 16, NEXT | WRITE, 0)]),
    ("SPLIT-23: next beyond the table", [(0, DATA, 16, NEXT, 0x7fff)]),
]


def refused(subject, row):
    """The device rejected the chain: a modern driver learns of it, and the ring is not touched."""
    how = subject.ended()
    assert how == ("silent" if subject.legacy else "reset"), f"{subject.name}: {row}: {how}"


def test_rings(t):
    """Malformed chains and rings: hostile S6, S7, S9, S15, Q13, Q25, D12, D28, D36; SPLIT-23 to SPLIT-27."""
    with subjects(t) as all_of_them:
        for subject in all_of_them:
            start, driver, qtest = time.monotonic(), subject.driver, subject.qtest
            for row, chain in CHAINS:
                subject.start()
                driver.offer(0, chain(subject))
                driver.kick(0)
                refused(subject, row)
            for row, address, length, data in INDIRECT_TABLES:
                subject.start(F_INDIRECT)
                qtest.write(TABLE, data or bytes(16))
                driver.offer(0, [(address, length, INDIRECT)])
                driver.kick(0)
                refused(subject, row)
            for row, descriptors in DESCRIPTORS:
                subject.start(F_INDIRECT)
                for descriptor in descriptors:
                    driver.descriptor(0, *descriptor)
                driver.available(0, 0)
                driver.kick(0)
                refused(subject, row)
            subject.start(F_INDIRECT)
            qtest.write(TABLE, table((HEADER, 16, 0, 0)))
            driver.descriptor(0, 0, TABLE, 16, INDIRECT | NEXT, 1)
            driver.descriptor(0, 1, DATA, 16, WRITE, 0)
            driver.available(0, 0)
            driver.kick(0)
            if subject.legacy:  # the table stands in the middle of a legacy driver's chain
                assert subject.ended() == "used", f"{subject.name}: INDIRECT together with NEXT"
            else:
                refused(subject, "SPLIT-25: INDIRECT together with NEXT")

            row = "SPLIT-25: INDIRECT that was not negotiated"
            subject.start()
            qtest.write(TABLE, table((DATA, 16, WRITE, 0)))
            driver.offer(0, [(TABLE, 16, INDIRECT)])
            driver.kick(0)
            refused(subject, row)
            for head in driver.sizes[0], 0x7fff, 0xffff:
                subject.start()
                driver.available(0, head)
                driver.kick(0)
                refused(subject, f"SPLIT-23: head {head}")
            for ahead in driver.sizes[0] + 1, 1000, 0x8000, 0xffff:
                subject.start()
                qtest.set_word(driver.ring(0)[1] + 2, ahead)
                driver.kick(0)
                refused(subject, f"hostile D28, D36, SPLIT-26: available index {ahead}")
            subject.works()  # hostile S13: a reset mends all
            t.say(f"{subject.name}: {time.monotonic() - start:.1f} s")
            subject.health.check()


def test_long_and_empty_chains(t):
    """hostile S14, Q7, K20, SPLIT-02: chains of many descriptors and of empty ones complete or are rejected."""
    with subjects(t) as all_of_them:
        for subject in all_of_them:
            driver, qtest = subject.driver, subject.qtest
            for count in 2, 33, 129, 257, 513, 1024:
                for flags in 0, WRITE:
                    for length in 0, 1:
                        subject.start(F_INDIRECT)
                        if count <= driver.sizes[0]:
                            driver.offer(0, [(DATA, length, flags)] * count)
                            driver.kick(0)
                            assert subject.legacy or subject.ended() != "silent", f"{subject.name}: {count} direct"
                            subject.start(F_INDIRECT)
                        qtest.write(TABLE, b"".join(table((DATA, length, flags | (NEXT if n < count - 1 else 0), n + 1))
                                                    for n in range(count)))
                        driver.offer(0, [(TABLE, 16 * count, INDIRECT)])
                        driver.kick(0)
                        assert subject.legacy or subject.ended() != "silent", f"{subject.name}: {count} indirect"
            subject.health.check()


# --- the devices' own requests --------------------------------------------------------------------------------------

def test_block_requests(t):
    """hostile S15a, S15d, S15e, S15f, S15h, F11, K16, Q1; BLK-07 to BLK-09, BLK-16 to BLK-24: each its answer."""
    data, readable = (DATA, SECTOR, WRITE), (DATA, SECTOR, 0)
    whole_segment = struct.pack("<QII", 0, 8, 0)
    rows = [  # name, type, sector, data, answer
        ("hostile S15f: sector 2^55", IN, 1 << 55, [data], IOERR),
        ("hostile S15f: sector 2^64 - 1", IN, (1 << 64) - 1, [data], IOERR),
        ("BLK-21: the first sector behind the end", IN, DISK_SECTORS, [data], IOERR),
        ("BLK-21: begins inside, ends outside", IN, DISK_SECTORS - 1, [(DATA, 2 * SECTOR, WRITE)], IOERR),
        ("BLK-21: write behind the end", OUT, DISK_SECTORS, [readable], IOERR),
        ("BLK-21: write across the end", OUT, DISK_SECTORS - 1, [(DATA, 2 * SECTOR, 0)], IOERR),
        ("hostile S15f, Q1, BLK-22: 511 bytes", IN, 0, [(DATA, 511, WRITE)], IOERR),
        ("BLK-22: 513 bytes", OUT, 0, [(DATA, 513, 0)], IOERR),
        ("BLK-22: 1 byte", OUT, 0, [(DATA, 1, 0)], IOERR),
        ("hostile S15e, BLK-23: read into what may only be read", IN, 0, [readable], IOERR),
        ("hostile S15e, BLK-23: write from what may only be written", OUT, 0, [data], IOERR),
        ("BLK-18: no such type", 77, 0, [data], UNSUPP),
        ("BLK-24: discard was not negotiated", DISCARD, 0, [(TABLE, 16, 0)], UNSUPP),
        ("BLK-24: write zeroes was not negotiated", WRITE_ZEROES, 0, [(TABLE, 16, 0)], UNSUPP),
        ("BLK-16: read", IN, DISK_SECTORS - 1, [data], OK),
        ("BLK-17: the serial number", GET_ID, 0, [(DATA, 20, WRITE)], OK),
        ("BLK-19: flush", FLUSH, 0, [], OK),
    ]
    with subjects(t) as all_of_them:
        for subject in all_of_them:
            if subject.kind == "rng":
                continue
            driver, qtest = subject.driver, subject.qtest
            qtest.write(TABLE, whole_segment)
            for row, type, sector, chain, expected in rows:
                subject.start(F_FLUSH)
                qtest.write(DATA, b"\x5a" * 1024)
                subject.block(type, sector, *chain)
                status, length = subject.answer()
                assert status == expected, f"{subject.name}: {row}: status {status}"
                writable = 1 + sum(part[1] for part in chain if part[2] & WRITE)
                assert length <= writable, f"{subject.name}: {row}: {length} of {writable} bytes used (hostile D40)"
                if expected == IOERR and readable in chain:
                    assert qtest.read(DATA, 1024) == b"\x5a" * 1024, f"{subject.name}: {row}"

            segments = [
                ("BLK-08: an unknown flag", DISCARD, struct.pack("<QII", 0, 8, 2), UNSUPP),
                ("BLK-09: discard with unmap", DISCARD, struct.pack("<QII", 0, 8, 1), UNSUPP),
                ("BLK-08: an unknown flag", WRITE_ZEROES, struct.pack("<QII", 0, 8, 4), UNSUPP),
                ("F11, BLK-21: discard behind the end", DISCARD, struct.pack("<QII", DISK_SECTORS, 8, 0), IOERR),
                ("BLK-21: zeroes that wrap", WRITE_ZEROES, struct.pack("<QII", (1 << 64) - 4, 8, 0), IOERR),
                ("BLK-22: half a segment", DISCARD, bytes(8), IOERR),
            ]
            for row, type, segment, expected in segments:
                subject.start(F_DISCARD | F_WRITE_ZEROES)
                if not driver.features & (F_DISCARD if type == DISCARD else F_WRITE_ZEROES):
                    continue
                qtest.write(TABLE, segment)
                subject.block(type, 0, (TABLE, len(segment), 0))
                assert subject.answer()[0] == expected, f"{subject.name}: {row}"

            # SPLIT-02, hostile D10: the header in sixteen descriptors, the data in pieces.
            subject.start()
            subject.block(IN, 1, (DATA, 100, WRITE), (DATA + 100, 412, WRITE),
                          header_parts=[(HEADER + n, 1, 0) for n in range(16)])
            assert subject.answer() == (OK, SECTOR + 1)
            assert qtest.read(DATA, SECTOR) == PATTERN
            # hostile S15a: an empty last descriptor; no byte before it is written.
            subject.start()
            qtest.write(STATUS - 8, b"\x77" * 16)
            driver.offer(0, [(HEADER, 16, 0), (DATA, SECTOR, WRITE), (STATUS, 0, WRITE)])
            driver.kick(0)
            subject.ended()
            assert qtest.read(STATUS - 8, 16) == b"\x77" * 16, f"{subject.name}: wrote around an empty descriptor"
            # hostile K16, BLK-23: headers of a wrong length.
            for length in 0, 1, 15:
                subject.start()
                subject.block(IN, 0, header_parts=[(HEADER, length, 0)])
                how = subject.ended()
                fine = how == "reset" or subject.legacy or qtest.read(STATUS, 1)[0] == IOERR
                assert fine, f"{subject.name}: a header of {length} bytes: {how}"
            # hostile S15d: a serial number of many times all memory.
            subject.start()
            subject.block(GET_ID, 0, *[(DATA, 32 << 20, WRITE)] * 64)
            subject.ended()
            # hostile S15c, D31, Q6: the same head twice, thrice, at once.
            subject.start()
            qtest.write(HEADER, struct.pack("<IIQ", IN, 0, 0))
            driver.offer(0, [(HEADER, 16, 0), data, (STATUS, 1, WRITE)])
            for _ in range(3):
                driver.available(0, 0)
            driver.kick(0)
            subject.ended()
            subject.works()
            subject.health.check()


def test_rng_requests(t):
    """hostile S19, K8, F19; RNG-02, RNG-04: empty and readable buffers, and those of many megabytes."""
    with subjects(t) as all_of_them:
        for subject in all_of_them:
            if subject.kind != "rng":
                continue
            driver, qtest = subject.driver, subject.qtest
            qtest.write(DATA, b"\x5a" * 64)
            for row, chain, least, most in [
                ("an empty buffer", [(DATA, 0, WRITE)], 0, 0),
                ("a readable buffer", [(DATA, 64, 0)], 0, 0),
                ("readable, then writable", [(DATA, 64, 0), (DATA + 64, 64, WRITE)], 1, 64),
                ("32 MiB", [(DATA, 32 << 20, WRITE)], 1, 32 << 20),
                ("32 MiB, eight times", [(DATA + 64, 32 << 20, WRITE)] * 8, 1, 256 << 20),
            ]:
                subject.start()
                driver.offer(0, chain)
                driver.kick(0)
                used = driver.used(0, wait=PATIENCE if most else 5)
                if used is None:
                    told = subject.legacy or driver.get("status") & NEEDS_RESET
                    assert most == 0 and told, f"{subject.name}: {row}"
                else:
                    assert least <= used[1] <= most, f"{subject.name}: {row}: {used[1]}"
                if most == 0:
                    assert qtest.read(DATA, 64) == b"\x5a" * 64, f"{subject.name}: {row}: was written"
            subject.health.check()


# --- time -----------------------------------------------------------------------------------------------------------

def test_reset_under_load(t):
    """hostile S15g, D41, F9, RST-01, RST-04: with requests under way; once status reads 0 no byte of memory changes."""
    with subjects(t) as all_of_them:
        for subject in all_of_them:
            driver, qtest = subject.driver, subject.qtest
            for round in range(5):
                subject.start()
                forget(subject.disk)
                count = driver.sizes[0] // 4
                for n in range(count):
                    place, header = DATA + 0x10000 * (n % 16), HEADER + 0x200 + 16 * n
                    qtest.write(header, struct.pack("<IIQ", IN, 0, 128 * (n % 32)))
                    chain = [(header, 16, 0), (place, 0x10000, WRITE), (STATUS, 1, WRITE)]
                    driver.offer(0, chain if subject.kind == "block" else chain[1:2], first=4 * n)
                driver.kick(0)
                time.sleep(0.002 * round)
                driver.reset()
                qtest.commands([f"memset {RINGS:#x} 0x10000 0xee", f"memset {DATA:#x} 0x100000 0xee"])
                time.sleep(0.05)
                assert qtest.read(RINGS, 0x10000) == b"\xee" * 0x10000, f"{subject.name}: a ring was written"
                assert qtest.read(DATA, 0x100000) == b"\xee" * 0x100000, f"{subject.name}: a buffer was written"
            subject.works()
            subject.health.check()


def forget(path):
    """Drops an image from the page cache, so that reading it takes its time."""
    if path:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_random(t):
    """A driver gone mad: random registers, random bytes in rings, doorbells, resets, in random order (seeded)."""
    rounds, steps = 25, 120
    with subjects(t, scribble=True) as all_of_them:
        # hostile S23: they share nothing, so a write to one must not show in another.
        for number in range(rounds):
            for subject in all_of_them:
                go_mad(subject, random.Random(1000 * number + len(subject.name)), steps)
                subject.works()
        for subject in all_of_them:
            subject.health.check()


def go_mad(subject, rng, steps):
    driver, qtest = subject.driver, subject.qtest
    registers = LEGACY_REGISTERS if subject.legacy else MODERN_REGISTERS
    subject.start(rng.choice((0, F_INDIRECT, F_INDIRECT | 1 << 29)))
    for _ in range(steps):
        action = rng.randrange(10)
        if action < 2:
            name = rng.choice(sorted(registers))
            driver.set(name, rng.choice((0, 1, 2, 7, 15, rng.getrandbits(64), 0xffffffffffffffff)))
        elif action < 4:
            driver.get(rng.choice(sorted(registers)))
        elif action < 6:  # a descriptor, more or less one
            flags = rng.choice((0, NEXT, WRITE, NEXT | WRITE, INDIRECT, rng.getrandbits(16)))
            address = rng.choice((HEADER, DATA, TABLE, RINGS, rng.getrandbits(26), rng.getrandbits(64)))
            length = rng.choice((0, 1, 16, 512, 4096, rng.getrandbits(32)))
            next = rng.choice((0, 1, 2, 3, rng.getrandbits(16)))
            driver.descriptor(0, rng.randrange(8), address, length, flags, next)
            qtest.write(HEADER, struct.pack("<IIQ", rng.choice((IN, OUT, FLUSH, GET_ID, 77)), 0, rng.getrandbits(16)))
        elif action < 7:
            place = rng.choice(driver.ring(0)[1:]) + rng.randrange(64)
            qtest.write(place, rng.randbytes(rng.randrange(1, 16)))
        elif action < 9:
            driver.available(0, rng.randrange(8))
            driver.kick(0)
        else:
            driver.set("status", rng.choice((0, 0, 0x80, 0xff, rng.getrandbits(8))))
