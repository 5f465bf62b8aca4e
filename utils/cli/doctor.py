"""`python3 -m utils doctor`: what is here, what is missing, and how to get it. Standard library only."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from utils.cli import environment

DATA = environment.ROOT / "data"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge", "msedge")
PROBE = """
import json, sys
def torch():
    import torch
    where = "Apple's GPU" if torch.backends.mps.is_available() else "CPU"
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        where = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
    return f"{torch.__version__} on {where}, {torch.get_num_threads()} threads"
def torchtext():
    import torchtext
    return torchtext.__version__
def jupyterlab():
    import jupyterlab
    return jupyterlab.__version__
for name in sys.argv[1:]:
    try:
        found = [globals()[name](), True]
    except Exception as problem:
        found = [f"not usable: {problem}", False]
    print(json.dumps(found), flush=True)
"""


def main(args):
    """Print ten lines; returns 1 if one of them is a problem, otherwise 0."""
    python = sys.executable if not environment.lacking(environment.NOTEBOOKS) else str(environment.venv_python())
    problems = 0
    for name, found, remedy in findings(python):
        problems += bool(remedy)
        print(f"{'!!' if remedy else 'ok'}  {name:12} {found}{f': {remedy}' if remedy else ''}")
    return int(problems > 0)


def findings(python):
    """What there is: (name, what was found, the remedy or ""), line by line. `python` is the one that notebooks use."""
    yield "Python", f"{sys.version.split()[0]} at {sys.executable}", ""
    ready = Path(python).exists()
    yield "environment", python if ready else "none yet", "" if ready else "python3 -m utils lab creates one"
    packages = ("torch", "torchtext", "jupyterlab")
    if ready:
        yield from probe(python, packages)
    else:
        yield from ((name, "not here", "python3 -m utils lab installs it") for name in packages)
    yield "IMDB", *imdb()
    yield "browser", find_browser() or "none found (it is needed only for `test --browser`)", ""
    for name, folder, least in (("disk", environment.ROOT, 1.0), ("temporary", Path(tempfile.gettempdir()), 0.5)):
        free = shutil.disk_usage(folder).free / 2**30
        remedy = "" if free >= least else f"make room, because {least:.1f} GiB is needed"
        yield name, f"{free:.1f} GiB free in {folder}", remedy
    writes = os.access(DATA, os.W_OK)
    yield (
        "data/",
        "writable" if writes else "not writable",
        "" if writes else "make your own copy of the repository, and start there",
    )


def probe(python, packages):
    """Import each of `packages` in `python`: (name, its version, the remedy or "").

    A package that crashes Python does not hide those after it.
    """
    remedy = "delete .venv and run python3 -m utils lab"
    done = subprocess.run([python, "-W", "ignore", "-c", PROBE, *packages], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    for name, line in zip(packages, lines):
        found, usable = json.loads(line)
        yield name, found, "" if usable else remedy
    if len(lines) < len(packages):  # it crashed in the next one
        yield packages[len(lines)], f"not usable: Python ends with code {done.returncode}", remedy
        yield from probe(python, packages[len(lines) + 1 :])


def find_browser():
    """The path of a browser on the PATH, None without one (Playwright knows where Windows and macOS keep theirs)."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def imdb():
    """What was found of IMDB, and the remedy or ""."""
    named = os.environ.get("IMDB_ARCHIVE")
    for found in (DATA / "imdb.pt", DATA / "aclImdb_v1.tar.gz"):
        if found.exists():
            return f"{found} (python3 -m utils data checks it)", ""
    if named:
        remedy = "" if Path(named).is_file() else "there is no such file: correct IMDB_ARCHIVE or unset it"
        return f"IMDB_ARCHIVE={named}", remedy
    return "not here, so toy reviews are used", "python3 -m utils data fetches it (84 MB)"
