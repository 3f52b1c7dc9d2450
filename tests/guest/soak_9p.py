# SPDX-License-Identifier: BSD-2-Clause
"""Work in a directory that viodev serves and in one of QEMU's virtio-9p, side by side in one guest, for minutes."""

import contextlib
import shutil
import time

import p9_work
import pytest
from checks import attach, status

SIDES = ("viodev", "qemu")

# Of a page that write() and then a mapping changed, Linux 6.12 writes back only what write() did; see docs/results.md.
MAY_FAIL = {"mmap"}


@contextlib.contextmanager
def both(t, **options):
    """A guest with a directory of each, to be mounted by the names in SIDES."""
    trees = {name: t.tmp / name for name in SIDES}
    for tree in trees.values():
        tree.mkdir()
    peer = ["-fsdev", f"local,id=tree,path={trees['qemu']},security_model=none",
            "-device", "virtio-9p-pci,fsdev=tree,mount_tag=qemu"]
    with t.serve(f"9p,id=tree,path={trees['viodev']},tag=viodev") as viodev:
        for tree in trees.values():
            shutil.copy(viodev.built("tests/guest/fsx"), tree)
        with t.guest(peer, attach(viodev), cpus=2, modules=p9_work.MODULES, **options) as guest:
            yield guest
        assert status(viodev, "tree")["driver-errors"] == 0


def table(title, rows):
    """Prints what came of each row's runs: True, False, or None for what cannot be had."""
    words = {True: "pass", False: "FAIL", None: "-"}
    print(f"\n| {title} | {' | '.join(SIDES)} |\n|---|---|---|")
    for name, results in rows.items():
        print(f"| {name} | {' | '.join(words.get(r, r) for r in results)} |")
    print(flush=True)


@pytest.mark.timeout(3600)
def test_fsx(t):
    """The exerciser with ten seeds and each kind of cache."""
    rows, texts = {}, []
    with both(t) as guest:
        for cache in p9_work.CACHES:
            results = []
            for side in SIDES:
                p9_work.mount(guest, side, "/tree", cache)
                passed = 0
                for seed in range(1, 40, 4):
                    well, text = p9_work.fsx(guest, "/tree", seed, 1000, 4,
                                             "" if cache == "none" else p9_work.CACHED_LEAVE_OUT, 300)
                    passed += well
                    if not well:
                        guest.check("rm -rf /tree/work")
                        if side == "viodev" and cache not in MAY_FAIL:
                            texts.append(f"cache={cache}\n{text}")
                results.append(f"{passed} of 10")
                guest.check("umount /tree")
            rows[f"fsx, cache={cache}"] = results
    table("40 000 operations, 4 processes at a time", rows)
    assert not texts, "\n".join(texts)


@pytest.mark.timeout(3600)
def test_stress(t):
    """stress-ng's file system class with --verify: nothing fails on our directory that passes on QEMU's."""
    rows, texts = {}, []
    with both(t, tools="devel", memory="1G") as guest:
        for side in SIDES:
            p9_work.mount(guest, side, f"/{side}")
        for name in p9_work.stressors(guest):
            runs = [p9_work.stress(guest, f"/{side}", name, 2) for side in SIDES]
            rows[name] = [well for well, _ in runs]
            if rows[name] == [False, True]:
                texts.append(f"{name}\n{runs[0][1]}")
    table("stress-ng --verify", rows)
    assert not texts, "\n".join(texts)


@pytest.mark.timeout(3600)
def test_programs(t):
    """git on a tree of some hundred files and a program of a dozen, with each kind of cache; seconds, of one run."""
    rows = {}
    with both(t, tools="devel", memory="1G") as guest:
        for cache in p9_work.CACHES:
            for name, work in ("git", lambda: p9_work.git(guest, "/tree", "/usr/include/linux/netfilter", 300)), \
                    ("compiler", lambda: p9_work.compiler(guest, "/tree", 12, 300)):
                results = []
                for side in SIDES:
                    p9_work.mount(guest, side, "/tree", cache)
                    start = time.monotonic()
                    work()
                    results.append(f"{time.monotonic() - start:.0f} s")
                    guest.check("umount /tree")
                rows[f"{name}, cache={cache}"] = results
    table("programs", rows)


NR_FILES = 68000


@pytest.mark.timeout(3600)
def test_many_files(t):
    """A guest with cache=loose reads 68,000 files, remembers all of them, and still opens more; seconds."""
    results = []
    with both(t, memory="2G") as guest:
        for side in SIDES:
            files = t.tmp / side / "files"
            files.mkdir()
            for i in range(NR_FILES):
                (files / str(i)).write_text(f"{i}\n")
            p9_work.mount(guest, side, f"/{side}", "loose")
            start = time.monotonic()
            read = guest.check(f"cd /{side}/files && ls | xargs cat | wc -l && cat 1 {NR_FILES - 1}", 1800)
            results.append(f"{time.monotonic() - start:.0f} s")
            assert read.split() == [str(NR_FILES), "1", str(NR_FILES - 1)], read
            guest.check(f"echo new >/{side}/files/new && cat /{side}/files/new && cd / && umount /{side}", 600)
    table("68,000 files", {"cache=loose": results})
