#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs the guest tests: functions test_* in the files test_*.py beside this one, each given a Context; with --soak
those in the files soak_*.py, which take minutes and print tables.

A test returns when it passed, raises Skip("why") when it cannot run here, and fails by any other exception. The first
line of its docstring says what it shows. A test that needs longer than TEST_SECONDS sets test_x.seconds = N.
"""

import argparse
import importlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

import vm  # noqa: E402  (found by the line above)

TEST_SECONDS = 900


class Context:
    """What a test gets: a folder of its own, and guests and servers made with the run's kit and viodev."""

    def __init__(self, kit, viodev, verbose):
        self.kit = kit
        self.viodev = viodev
        self.verbose = verbose
        self.tmp = pathlib.Path(tempfile.mkdtemp(prefix="viodev-test."))

    def guest(self, *devices, **options):
        return vm.Guest(*devices, kit=self.kit, **options)

    def serve(self, *devices, **options):
        return vm.Viodev(self.viodev, *devices, **options)

    def say(self, text):
        """A measured figure, or a step: shown with -v."""
        if self.verbose:
            print(f"     {text}", flush=True)


def find_tests(kind, patterns):
    for path in sorted(HERE.glob(f"{kind}_*.py")):
        module = importlib.import_module(path.stem)
        for name, function in vars(module).items():
            full = f"{path.stem[5:]}.{name[5:]}"
            if name.startswith("test_") and callable(function) and any(pattern in full for pattern in patterns):
                yield full, function


def make_kit():
    """The kit's path; scripts/kit.sh makes it if need be, and tells the user about it itself."""
    done = subprocess.run([ROOT / "scripts" / "kit.sh"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit("run.py: no guest kit")
    return done.stdout.splitlines()[-1]


def on_alarm(number, frame):
    raise TimeoutError("the test takes too long")


def run(name, function, context):
    """Runs one test and prints its line: 'ok', 'FAIL' or 'skip'."""
    start = time.monotonic()
    signal.alarm(getattr(function, "seconds", TEST_SECONDS))
    try:
        function(context)
        result, text = "ok", f"ok {name} ({time.monotonic() - start:.1f} s)"
    except vm.Skip as why:
        result, text = "skip", f"skip {name}: {why}"
    except Exception:  # not KeyboardInterrupt
        details = traceback.format_exc().rstrip().replace("\n", "\n     ")
        result, text = "FAIL", f"FAIL {name} ({time.monotonic() - start:.1f} s)\n     {details}"
    finally:
        signal.alarm(0)
    print(text, flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description="Runs the guest tests.")
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="only tests whose name contains one of these")
    parser.add_argument("--viodev", default=str(ROOT / "build" / "viodev"), metavar="BIN", help="default: %(default)s")
    parser.add_argument("--kit", metavar="DIR", help="default: what scripts/kit.sh makes")
    parser.add_argument("-v", "--verbose", action="store_true", help="also show what the tests measure")
    parser.add_argument("--soak", action="store_const", const="soak", default="test", dest="kind", help="run the long ones instead")
    parser.add_argument("--list", action="store_true", help="name the tests and what they show, run none")
    options = parser.parse_args()

    tests = list(find_tests(options.kind, options.patterns or [""]))
    if not tests:
        sys.exit(f"run.py: no test's name contains {' or '.join(options.patterns)}")
    if options.list:
        for name, function in tests:
            print(f"{name}: {(function.__doc__ or '').strip().splitlines()[0] if function.__doc__ else ''}")
        return

    if not os.access(options.viodev, os.X_OK):
        sys.exit(f"run.py: no viodev at {options.viodev}: make build makes one")
    kit = options.kit or make_kit()
    signal.signal(signal.SIGALRM, on_alarm)
    # A runner that is told to end takes its guests along, by way of their `with` statements.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = []
    for name, function in tests:
        context = Context(kit, os.path.abspath(options.viodev), options.verbose)
        try:
            results.append(run(name, function, context))
        finally:
            shutil.rmtree(context.tmp, ignore_errors=True)
    print(f"{results.count('ok')} passed, {results.count('FAIL')} failed, {results.count('skip')} skipped")
    sys.exit(1 if "FAIL" in results else 0)


if __name__ == "__main__":
    main()
