"""Continues in a Python that has the requirements: the running one, otherwise `.venv`. Standard library only."""

import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements.txt"  # what a reader needs
TEST_REQUIREMENTS = ROOT / "utils" / "tests" / "requirements.txt"  # and what tests, pages and `run` need in addition
VENV = ROOT / ".venv"
WITHOUT_CUDA, WITH_CUDA = "300 MB to download, 1.3 GB on disk", "3.2 GB to download, 5.8 GB on disk"  # measured
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"

# What a Python must have to be used as it is: usable versions (from, below), not the exact pins.
LIBRARY = ("torch", "torchtext", "sentencepiece", "numpy", "matplotlib", "ipywidgets", "pooch", "tqdm")
NOTEBOOKS = (*LIBRARY, "jupyterlab", "ipython", "nbformat", "pyzmq")
TESTS = (*NOTEBOOKS, "pytest", "pytest-xdist", "hypothesis", "nbval", "nbclient", "psutil", "latex2mathml", "pillow")
USABLE = {"torch": ((2, 6), (3,)), "torchtext": ((0, 6), (0, 7)), "ipywidgets": ((7, 7), (9,))}

# Kernels are those of this environment, not of the home directory.
os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")

FAILURES = (  # what pip and venv print → what we print; the first that fits
    (
        r"No space left on device|not enough space on the disk",
        "The disk, or the folder for temporary files, is full: make room (3 GB, with CUDA 13 GB) and start again.",
    ),
    (
        r"Permission denied: '([^']*)'|Read-only file system: '([^']*)'",
        r"\1\2 is not writable: make your own copy of the repository, and start there.",
    ),
    (
        r"connection broken|ConnectionError|timed out|ProxyError|name resolution|getaddrinfo",
        "No network: pip cannot reach its package index. Connect, or correct pip's settings, and start again.",
    ),
    (
        r"No matching distribution found for (\S+)",
        r"There is no \1 for this Python and machine: use a 64-bit Python 3.11 to 3.14 and start again.",
    ),
)


def enter(argv, packages):
    """Return if the running Python has `packages`; otherwise do `argv` in `.venv`, which is made or updated first."""
    files = [REQUIREMENTS, TEST_REQUIREMENTS] if packages == TESTS else [REQUIREMENTS]
    missing, in_venv = lacking(packages), stamp(REQUIREMENTS).exists() and VENV.samefile(sys.prefix)
    if not missing and (not in_venv or installed(files)):
        return
    if not installed(files):
        with installation_lock():
            if not installed(files):  # unless another process has done so in the meantime
                install(files, missing)
    elif in_venv:
        sys.exit(f"{VENV} is damaged (it lacks {', '.join(missing)}): delete this folder and start again.")
    replace_process([str(venv_python()), "-m", "utils", *argv])


def lacking(packages):
    """Those of `packages` that the running Python lacks, or has in an unusable version; a list of names."""
    missing = []
    for name in packages:
        least, below = USABLE.get(name, ((0,), (sys.maxsize,)))
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if not least <= tuple(int(number) for number in re.findall(r"\d+", version)) < below:
            missing.append(f"a usable {name} (it has {version})")
    return missing


def venv_python():
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def stamp(requirements):
    """The file written last when `requirements` were installed; it holds their fingerprint."""
    name = "-".join(requirements.relative_to(ROOT).with_suffix("").parts)  # "requirements", "utils-tests-requirements"
    return VENV / f"{name}.sha256"


def sha256(path):
    return hashlib.sha256(
        path.read_text("utf8").encode()
    ).hexdigest()  # read as text, so that line endings do not matter


def installed(files):
    """Whether `.venv` has all that the requirements `files` name, as they are now."""
    stamps = [(stamp(file), sha256(file)) for file in files]
    return venv_python().exists() and all(path.exists() and path.read_text() == wanted for path, wanted in stamps)


@contextmanager
def installation_lock():
    """Lets one installation in this folder run at a time, while others wait. Windows has no such lock."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network drives have none
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"Another process is installing into {VENV}: waiting for it.", flush=True)
                fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def has_nvidia():
    return bool(shutil.which("nvidia-smi")) or Path("/proc/driver/nvidia").exists()


def install(files, missing):
    """Install what `files` name into `.venv`, which is created if there is none.

    If that fails, exit with one line that says what to do.
    """
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        sys.exit(
            f"This Python cannot create environments: run sudo apt install {package} (Debian, Ubuntu) and start again."
        )
    if not os.access(ROOT, os.W_OK):
        lacks = f"{ROOT} is not writable, and {sys.executable} lacks {', '.join(missing)}"
        sys.exit(f"{lacks}: make your own copy of the repository, and start there.")
    # Only a finished installation is built upon: one that was cut short may hold packages that pip believes are whole.
    new = not (venv_python().exists() and stamp(REQUIREMENTS).exists())
    cuda = sys.platform == "linux" and has_nvidia()
    if new:
        print(f"{sys.executable} lacks {', '.join(missing)}.")
        print(f"Installing requirements.txt into {VENV}, once: {WITH_CUDA if cuda else WITHOUT_CUDA}.", flush=True)
        # This takes two steps, because venv does not say why ensurepip failed.
        step([sys.executable, "-m", "venv", "--clear", "--without-pip", VENV])
        step([venv_python(), "-m", "ensurepip", "--default-pip"])
    pip = [venv_python(), "-m", "pip", "install", "--disable-pip-version-check"]
    for file in files:
        if installed([file]):
            continue
        if stamp(file).exists():
            print(f"{file.relative_to(ROOT)} has changed: bringing {VENV} up to date.", flush=True)
        elif file == TEST_REQUIREMENTS:
            print("Installing what tests and pages need, once: 100 MB to download, 250 MB on disk.", flush=True)
        stamp(file).unlink(missing_ok=True)
        if file == REQUIREMENTS and sys.platform == "linux" and not cuda:
            install_cpu_torch(pip)
        step([*pip, "-r", file, "-c", REQUIREMENTS])
        stamp(file).write_text(sha256(file))
    print(f"Done: {VENV} is ready.", flush=True)


def install_cpu_torch(pip):
    """Install torch without CUDA, because the ordinary one for Linux brings gigabytes of it.

    If the index of CPU wheels does not answer soon, give up and say so.
    """
    torch = re.search(r"^torch==.*", REQUIREMENTS.read_text("utf8"), re.MULTILINE)[0]
    impatient = ["--retries", "1", "--timeout", "15"]
    absent = "No matching distribution|ResolutionImpossible"  # the latter where the user's pip has constraints
    if not step([*pip, "--no-deps", "--index-url", CPU_WHEELS, *impatient, torch], unless=absent):
        print(f"{CPU_WHEELS} has no {torch}, or cannot be reached.")
        print(f"The ordinary torch, with CUDA, is installed instead: {WITH_CUDA}. Press Ctrl-C to stop.", flush=True)


def step(command, unless=None):
    """Run one step of the installation and show its large downloads. Returns whether it succeeded.

    If it fails, exit, except when its output matches `unless`.
    """
    said = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout:
            said += line
            if " MB)" in line or line.startswith("Installing"):
                print(f"  {line.strip():.110}", flush=True)
    if process.returncode and not (unless and re.search(unless, said)):
        sys.exit(explain(said))
    return process.returncode == 0


def explain(failure):
    """One line with the remedy for a known failure; for any other, the end of what was printed."""
    for pattern, remedy in FAILURES:
        if found := re.search(pattern, failure):
            return found.expand(remedy)
    return "".join(failure.splitlines(keepends=True)[-15:]) + "The installation failed, for the reason above."


def replace_process(command):
    """Continue as `command`. Windows cannot replace a process: there it becomes a child, which handles Ctrl-C."""
    sys.stdout.flush()
    if os.name == "posix":
        os.execv(command[0], command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(subprocess.call(command))
