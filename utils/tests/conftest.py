"""The toy task; --browser, and what is said at the end about what the browser saw; who takes which file of tests."""

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest
import torch
from hypothesis import configuration, settings
from xdist.scheduler import LoadFileScheduling

from utils import tasks
from utils.__main__ import main
from utils.cli import environment
from utils.presets import PRESETS

NOTICES = pytest.StashKey[list]()


def command(verb, line):
    """What `python3 -m utils VERB …` does and returns, in this process."""
    return main([verb, *line])


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also run the campaigns that take minutes")
    parser.addoption("--browser", action="store_true", help="also run all notebooks in JupyterLab, in a browser")
    parser.addoption("--without-posix", action="store_true", help="as on Windows: without what POSIX alone has")


def pytest_configure(config):
    if config.getoption("--without-posix"):
        import psutil  # noqa: F401  needs `resource` itself on Linux

        sys.modules |= dict.fromkeys(("resource", "fcntl"))  # importing them is an ImportError
        for place, name in ((os, "fork"), (os, "geteuid"), (os, "symlink"), (pathlib.Path, "hardlink_to")):
            setattr(place, name, refuse) if name in ("symlink", "hardlink_to") else delattr(place, name)
    config.stash[NOTICES] = []
    config.addinivalue_line("markers", "long: a campaign of minutes, run with --long")
    configuration.set_hypothesis_home_dir(tempfile.gettempdir())
    settings.register_profile("quick", max_examples=25, deadline=None, database=None, derandomize=True)
    settings.register_profile("long", max_examples=2000, deadline=None, database=None)
    settings.load_profile("long" if config.getoption("--long") else "quick")
    torch.set_num_threads(1)  # of the tests' small models; notebooks have kernels of their own


def refuse(*_):
    raise OSError("A required privilege is not held by the client")  # as Windows says of links


def pytest_collection_modifyitems(config, items):
    # What takes longest comes first, so that at the end no process waits long for another.
    items.sort(key=lambda item: ("test_browser" not in item.nodeid, ".ipynb" not in item.nodeid))
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="a campaign of minutes: --long"))


class ByFile(LoadFileScheduling):
    """A process takes a whole file, whose cells or fixtures belong together; of what needs the browser, one test."""

    def _split_scope(self, nodeid):
        return nodeid if "test_browser" in nodeid else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["notices"] = session.config.stash[NOTICES]


def pytest_testnodedown(node):
    node.config.stash[NOTICES].extend(getattr(node, "workeroutput", {}).get("notices", ()))


def pytest_terminal_summary(terminalreporter, config):
    for sign, title, text in dict.fromkeys(map(tuple, config.stash[NOTICES])):
        terminalreporter.section(title, sep=sign, bold=True)
        terminalreporter.line(text)


@pytest.fixture(scope="session")
def notices(request):
    """What the end of the run will say: a list of (character of the rule above, title, text)."""
    return request.config.stash[NOTICES]


@pytest.fixture(scope="session")
def task(tmp_path_factory):
    """The toy reviews as numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "CACHE", tmp_path_factory.mktemp("cache"))
        return tasks.prepare(**PRESETS["toy"]["task"])


@pytest.fixture
def forked():
    """Does `work()` in a child; returns its exit code: 0, 1 if it raises, or what it ends itself with."""
    if not hasattr(os, "fork"):
        pytest.skip("this system makes no copy of a process")

    def run(work):
        child = os.fork()
        if not child:
            try:
                work()
            except BaseException:
                os._exit(1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return run


@pytest.fixture(scope="session")
def left_by(tmp_path_factory):
    """Runs a module of tests as a program, for it forks, which threads forbid; gives the folder of what it saw."""

    def run(module):
        if not hasattr(os, "fork"):
            pytest.skip("this system makes no copy of a process")
        folder = tmp_path_factory.mktemp(module)
        line, variables = [sys.executable, "-m", f"utils.tests.{module}", str(folder)], {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(line, cwd=environment.ROOT, env=os.environ | variables, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return folder

    return run
