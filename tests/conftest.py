# SPDX-License-Identifier: BSD-2-Clause
"""What the command's and the guests' tests share under pytest.

    pytest-3 tests/guest -k "net.modern or rng"     names are FILE.TEST without test_
    pytest-3 -v tests/cli                           -v shows what the tests measure
    pytest-3 -n 2 tests/guest                       two at a time, with pytest-xdist, and without what they measure
    pytest-3 -s tests/guest/soak_*.py               the long ones, which print tables

A test of guests takes a Context, `t`. It passes when it returns, raises vm.Skip("why") when it cannot run here, and
fails on any other exception. The first line of its docstring says what it shows. A test may take `timeout` of
pytest.ini, or its own @pytest.mark.timeout(SECONDS).
"""

import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    group = parser.getgroup("viodev")
    group.addoption("--viodev", default=str(ROOT / "build" / "viodev"), metavar="BIN", help="default: %(default)s")
    group.addoption("--kit", metavar="DIR", help="the guest kit; default: what scripts/kit.sh makes")


def pytest_configure(config):
    viodev = os.path.realpath(config.getoption("--viodev"))
    if not os.access(viodev, os.X_OK):
        raise pytest.UsageError(f"no viodev at {viodev}: make build makes one")
    os.environ["VIODEV"] = viodev
    # Tests end their guests by `with` statements, also when the run is ended. With -n the workers do so, whichever way
    # the process that started them ends.
    if hasattr(config, "workerinput"):
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # A worker may be on another thread than the main one, which alone can handle signals: it then ends at once.
    if threading.current_thread() is not threading.main_thread():
        return
    if not config.getoption("numprocesses", None) or hasattr(config, "workerinput"):
        signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))
    # What nohup, or a shell that runs us in the background, made us ignore is inherited, and no shell can trap it then.
    for signo in signal.SIGHUP, signal.SIGINT, signal.SIGQUIT:
        if signal.getsignal(signo) == signal.SIG_IGN:
            signal.signal(signo, signal.default_int_handler if signo == signal.SIGINT else signal.SIG_DFL)


def pytest_itemcollected(item):
    """Names for -k: net.modern is test_modern in test_net.py."""
    item.extra_keyword_matches.add(f"{item.path.stem.split('_', 1)[-1]}.{item.name.removeprefix('test_')}")


def pytest_report_teststatus(report):
    if report.when == "call" and report.passed:
        return "passed", ".", f"ok ({report.duration:.1f} s)"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(call):
    report = (yield).get_result()
    notes = getattr(call.excinfo.value, "__notes__", ()) if call.excinfo and report.failed else ()
    report.sections += [("notes", note) for note in notes]


def pytest_unconfigure(config):
    """The line that scripts/check.sh adds up."""
    if reporter := config.pluginmanager.get_plugin("terminalreporter"):
        count = {name: len(reports) for name, reports in reporter.stats.items()}
        failed = count.get("failed", 0) + count.get("error", 0)
        print(f"{count.get('passed', 0)} passed, {failed} failed, {count.get('skipped', 0)} skipped", flush=True)


class Context:
    """What a test of guests gets: a folder of its own, and guests and servers made with the run's kit and viodev."""

    def __init__(self, config, kit, tmp):
        self.kit, self.viodev, self.tmp = kit, os.environ["VIODEV"], tmp
        self._config = config

    def guest(self, *devices, **options):
        import vm
        return vm.Guest(*devices, kit=self.kit, **options)

    def serve(self, *devices, **options):
        import vm
        return vm.Viodev(self.viodev, *devices, **options)

    def say(self, text):
        """A measured figure, or a step: shown with -v, unless several tests run at once (-n)."""
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter and self._config.option.verbose > 1:
            with self._config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.write_line(f"     {text}")


@pytest.fixture(scope="session")
def kit(request):
    if given := request.config.getoption("--kit"):
        return given
    done = subprocess.run([ROOT / "scripts" / "kit.sh"], stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.splitlines()[-1] if done.returncode == 0 else pytest.exit("no guest kit")


@pytest.fixture
def t(request, kit):
    tmp = pathlib.Path(tempfile.mkdtemp(prefix="viodev-test."))
    yield Context(request.config, kit, tmp)
    shutil.rmtree(tmp, ignore_errors=True)
