#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Plant known faults one at a time, and see that a test or a fuzzer notices.

    scripts/plants.py             all of tests/plants.toml
    scripts/plants.py NAME...     those whose name contains one of these
    scripts/plants.py --check     only whether each can still be planted

A fuzz target starts from an empty corpus and has 60 s of processor time. The
tree is copied to build-plants; the plants are applied there.
"""
import argparse
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
TREE = ROOT / "build-plants" / "tree"
FUZZ_SECONDS = 60
LIMIT_SECONDS = 300  # of anything, on a machine with other work
ENV = os.environ | {"UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}

# How to build what fuzzes, what users get, what sees races.
SETUPS = {
    "fuzz": ["-Dfuzz=true", "-Db_sanitize=address,undefined", "-Db_lundef=false"],
    "test": [],
    "tsan": ["-Db_sanitize=thread", "-Db_lundef=false"],
}
SETUPS["cli"] = SETUPS["test"]
FINDS = re.compile(r"SUMMARY: .*|.*: not so: .*|.*timeout after.*|\[  FAILED  \] .*|(?:FAILED|ERROR):? .*|^E +.*", re.M)


def plants():
    with open(ROOT / "tests" / "plants.toml", "rb") as f:
        return tomllib.load(f)


def replaced(plant, text):
    for edit in plant["edit"]:
        if text.count(edit["old"]) != edit.get("times", 1):
            return None
        text = text.replace(edit["old"], edit["new"])
    return text


def place(plant, root):
    """The one file where all the plant's edits apply, whatever its name is today."""
    files = [p for p in (root / "src").rglob("*.[ch]")
             if replaced(plant, p.read_text()) is not None]
    return files[0] if len(files) == 1 else None


def check(table):
    lost = [name for name, plant in table.items() if not place(plant, ROOT)]
    for name in lost:
        print(f"plants: {name} cannot be planted any more: its lines have changed")
    print(f"{len(table) - len(lost)} passed, {len(lost)} failed, 0 skipped")
    return not lost


def copy_tree():
    """All that git knows or would, without touching what is the same."""
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT,
                         check=True, capture_output=True, text=True).stdout
    for name in out.splitlines():
        src, dst = ROOT / name, TREE / name
        if not src.is_file():
            continue
        if dst.is_file() and dst.read_bytes() == src.read_bytes():
            continue
        dst.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(src, dst)


def build(kind, target):
    """The arguments that run the target."""
    folder = TREE.parent / ("test" if kind == "cli" else kind)
    if not (folder / "build.ninja").exists():
        subprocess.run(["meson", "setup", folder, TREE, *SETUPS[kind]], check=True,
                       env=ENV | ({"CC": "clang"} if kind == "fuzz" else {}),
                       stdout=subprocess.DEVNULL)
    # Targets may be new since the folder was set up.
    subprocess.run(["ninja", "-C", folder, "build.ninja"], check=True, stdout=subprocess.DEVNULL)
    names = subprocess.run(["ninja", "-C", folder, "-t", "targets", "all"], check=True,
                           capture_output=True, text=True).stdout
    name = "src/viodev/viodev" if kind == "cli" else rf"tests/(?:\w+/)?{target}"
    path = re.search(rf"^({name}|src/viodev/{target}):", names, re.M)
    if not path:
        raise RuntimeError(f"there is no target {target}")
    ret = subprocess.run(["ninja", "-C", folder, "--quiet", path[1]],
                         capture_output=True, text=True)
    if ret.returncode:
        raise RuntimeError(f"{target} does not build\n{ret.stdout[-2000:]}")
    if kind == "cli":
        return ["pytest-3", "-q", TREE / "tests/cli/test_cli.py", "--viodev", folder / path[1],
                "-k", target]
    return [folder / path[1]]


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def limit_cpu():
    resource.setrlimit(resource.RLIMIT_CPU, (FUZZ_SECONDS, FUZZ_SECONDS + 10))


def run(kind, argv):
    """Whether it ended without complaint, what it said, its processor time."""
    if kind == "fuzz":
        corpus = TREE.parent / "corpus"
        shutil.rmtree(corpus, ignore_errors=True)
        corpus.mkdir()
        argv += [f"-max_total_time={LIMIT_SECONDS}", "-timeout=10", "-malloc_limit_mb=64",
                 "-rss_limit_mb=1024", "-max_len=2048", "-use_value_profile=0",
                 "-entropic=0", f"-artifact_prefix={corpus}/", corpus]
    before = cpu_seconds()
    try:
        ret = subprocess.run(argv, env=ENV, cwd=TREE, timeout=LIMIT_SECONDS + 30,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT,
                             preexec_fn=limit_cpu if kind == "fuzz" else None)
        ok, text = ret.returncode in (0, -signal.SIGXCPU), ret.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as e:
        ok, text = False, (e.stdout or b"").decode(errors="replace") + "\ntimeout after all\n"
    return ok, text, cpu_seconds() - before


def kind_of(plant):
    return next(kind for kind in SETUPS if kind in plant)


def try_plant(name, plant, green):
    kind = kind_of(plant)
    target, file = plant[kind], place(plant, TREE)
    if not file:
        return False, "cannot be planted any more: its lines have changed"
    if kind != "fuzz" and (kind, target) not in green:
        ok, text, _ = run(kind, build(kind, target))
        if not ok:
            return False, f"{target} fails without it\n{text[-2000:]}"
        green.add((kind, target))
    original = file.read_text()
    file.write_text(replaced(plant, original))
    try:
        ok, text, seconds = run(kind, build(kind, target))
    finally:
        file.write_text(original)
    if ok:
        return False, f"{target} does not notice"
    found = FINDS.search(text)
    return True, f"{target}, {seconds:.0f} s: {found[0][:90] if found else 'it ended'}"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    table = {name: plant for name, plant in plants().items()
             if not args.names or any(part in name for part in args.names)}
    if args.check:
        sys.exit(not check(table))
    copy_tree()
    passed, green = 0, set()
    for name, plant in table.items():
        try:
            ok, what = try_plant(name, plant, green)
        except RuntimeError as e:
            ok, what = False, str(e)
        passed += ok
        print(f"{'found ' if ok else 'MISSED'} {name}: {what}", flush=True)
    print(f"{passed} passed, {len(table) - passed} failed, 0 skipped")
    sys.exit(passed < len(table))


if __name__ == "__main__":
    main()
