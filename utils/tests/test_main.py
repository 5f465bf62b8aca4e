"""The command line: which Python it goes on in, what it installs, what it says when something is missing."""

import ast
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from utils.__main__ import VERBS, main
from utils.cli import arguments, environment

UTILS, INSTALL = environment.ROOT / "utils", environment.install


@pytest.fixture
def repo_copy(tmp_path):
    """A copy of the command line whose requirements are empty packages on the disk: installing takes seconds."""
    (tmp_path / "utils/cli").mkdir(parents=True)
    for name in ("__init__", "__main__", "presets", "cli/__init__", "cli/arguments", "cli/environment"):
        shutil.copy(UTILS / f"{name}.py", tmp_path / "utils" / f"{name}.py")
    (tmp_path / "utils/cli/data.py").write_text("import sys\n\ndef main(args):\n    print(sys.prefix)\n")
    (tmp_path / "wheels").mkdir()
    versions = dict.fromkeys(environment.LIBRARY, "1") | {"torch": "2.13.0", "torchtext": "0.6.0", "ipywidgets": "8.1"}
    for name, version in versions.items():
        with zipfile.ZipFile(tmp_path / f"wheels/{name}-{version}-py3-none-any.whl", "w") as wheel:
            info = f"{name}-{version}.dist-info"
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    (tmp_path / "requirements.txt").write_text("\n".join(f"{name}=={versions[name]}" for name in versions))
    (tmp_path / "utils/tests").mkdir()
    (tmp_path / "utils/tests/requirements.txt").write_text("absent==1\n")  # what `data` does not need
    return tmp_path


def start(repo_copy, python=sys.executable, **variables):
    """Run `python3 -m utils data` in `repo_copy`, with no package index but its own wheels."""
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": str(repo_copy / "wheels"), "PIP_NO_INDEX": "1"}
    return subprocess.run(
        [str(python), "-m", "utils", "data"],
        cwd=repo_copy,
        env=os.environ | offline | variables,
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(not importlib.util.find_spec("ensurepip"), reason="this Python cannot make environments")
def test_the_environment_is_made_once_finished_if_cut_short_and_kept_up_to_date(repo_copy):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", repo_copy / "bare"], check=True)
    bare = repo_copy / "bare" / environment.venv_python().relative_to(environment.VENV)
    venv = str(repo_copy / ".venv")
    stamp = repo_copy / ".venv/requirements.sha256"

    first = start(repo_copy, bare)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "bare" in first.stdout.splitlines()[0] and "lacks torch, torchtext" in first.stdout
    assert first.stdout.splitlines()[-1] == venv
    assert stamp.read_text() == hashlib.sha256((repo_copy / "requirements.txt").read_bytes()).hexdigest()
    assert start(repo_copy, bare).stdout == f"{venv}\n"

    # Cut short: the stamp was never written, a package may be half there.
    stamp.unlink()
    half = repo_copy / ".venv/half"
    half.touch()
    assert f"Installing requirements.txt into {venv}" in start(repo_copy, bare).stdout
    assert stamp.exists() and not half.exists()

    # New requirements, and no network to fetch them from.
    (repo_copy / "requirements.txt").write_text((repo_copy / "requirements.txt").read_text() + "\nabsent==1\n")
    nowhere = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    cut_off = start(repo_copy, bare, **nowhere)
    assert cut_off.returncode == 1 and "requirements.txt has changed" in cut_off.stdout
    assert cut_off.stderr.startswith("No network") and cut_off.stderr.count("\n") == 1
    assert not stamp.exists()


@pytest.mark.skipif(os.name != "posix", reason="without locks on folders")
@pytest.mark.skipif(not importlib.util.find_spec("ensurepip"), reason="this Python cannot make environments")
def test_of_two_at_once_one_installs_and_the_other_waits_for_it(repo_copy):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", repo_copy / "bare"], check=True)
    with ThreadPoolExecutor() as both:
        done = list(both.map(lambda _: start(repo_copy, repo_copy / "bare/bin/python"), range(2)))
    assert [one.returncode for one in done] == [0, 0], done
    assert [one.stdout.splitlines()[-1] for one in done] == [f"{repo_copy}/.venv"] * 2
    said = "".join(one.stdout for one in done)
    assert said.count("Installing requirements.txt") == said.count("Another process is installing") == 1


def test_ctrl_c_is_one_line(repo_copy):
    (repo_copy / "utils/cli/data.py").write_text("def main(args):\n    raise KeyboardInterrupt\n")
    stopped = start(repo_copy)
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (130, "", "\nstopped\n")


def test_an_environment_that_has_the_requirements_is_used_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(environment, "install", None)
    monkeypatch.setattr(environment, "replace_process", None)
    for verb, (_, _, packages, _) in VERBS.items():
        assert environment.enter([verb], packages) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, version, usable",
    [
        ("torch", "2.6.0", True),
        ("torch", "2.13.0+cpu", True),
        ("torch", "2.5.1", False),
        ("torchtext", "0.6.0", True),
        ("torchtext", "0.18.0", False),
        ("ipywidgets", "7.7.1", True),
        ("ipywidgets", "9.0.0a1", False),
        ("pooch", "0.1", True),
    ],
)
def test_usable_versions(monkeypatch, name, version, usable):
    installed = environment.metadata.version
    monkeypatch.setattr(environment.metadata, "version", lambda other: version if other == name else installed(other))
    assert environment.lacking([name]) == ([] if usable else [f"a usable {name} (it has {version})"])


def test_a_damaged_environment_is_named_not_tried_again(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "VENV", tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(environment, "lacking", lambda packages: ["nbval"])
    environment.venv_python().parent.mkdir()
    environment.venv_python().touch()
    for file in (environment.REQUIREMENTS, environment.TEST_REQUIREMENTS):
        environment.stamp(file).write_text(environment.sha256(file))
    with pytest.raises(SystemExit, match=r"it lacks nbval\): delete this folder"):
        environment.enter(["test"], environment.TESTS)


def test_what_only_tests_need_is_installed_by_the_first_test(monkeypatch, tmp_path, capsys):
    done = []
    monkeypatch.setattr(environment, "VENV", tmp_path)
    monkeypatch.setattr(environment, "lacking", lambda packages: ["nbval"])
    monkeypatch.setattr(environment, "step", lambda command, unless=None: done.append(command))
    monkeypatch.setattr(environment, "replace_process", done.append)
    environment.venv_python().parent.mkdir()
    environment.venv_python().touch()
    environment.stamp(environment.REQUIREMENTS).write_text(environment.sha256(environment.REQUIREMENTS))
    environment.enter(["lab"], environment.NOTEBOOKS)
    assert [command[1:] for command in done] == [["-m", "utils", "lab"]]
    done.clear()
    environment.enter(["test"], environment.TESTS)
    assert environment.TEST_REQUIREMENTS in done[0] and done[1][1:] == ["-m", "utils", "test"]
    assert "what tests and pages need" in capsys.readouterr().out
    assert environment.installed([environment.REQUIREMENTS, environment.TEST_REQUIREMENTS])


def test_an_old_python_is_told_so():
    for name in ("__init__", "__main__", "cli/__init__"):
        ast.parse((UTILS / f"{name}.py").read_text("utf8"), feature_version=(3, 8))
    old = next(Path.home().glob(".pyenv/versions/3.10.*/bin/python"), None)
    if not old:
        pytest.skip("no Python 3.10 here")
    told = subprocess.run([old, "-m", "utils", "--help"], cwd=environment.ROOT, capture_output=True, text=True)
    assert told.returncode == 1 and told.stdout == ""
    assert told.stderr.startswith("Python 3.11 or newer is needed") and told.stderr.count("\n") == 1


def test_a_missing_venv_module_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "VENV", tmp_path)
    monkeypatch.setattr(environment, "step", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else name)
    with pytest.raises(SystemExit, match=rf"apt install python3\.{sys.version_info.minor}-venv"):
        environment.install([environment.REQUIREMENTS], ["torch"])


@pytest.mark.parametrize("nvidia", [True, False])
@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_cpu_wheels_are_asked_for_on_linux_without_nvidia(monkeypatch, tmp_path, nvidia, platform):
    steps = []
    monkeypatch.setattr(environment, "VENV", tmp_path)
    monkeypatch.setattr(environment, "has_nvidia", lambda: nvidia)
    monkeypatch.setattr(environment, "step", lambda command, unless=None: steps.append(" ".join(map(str, command))))
    monkeypatch.setattr(environment.sys, "platform", platform)
    environment.install([environment.REQUIREMENTS], ["torch"])
    cpu = [command for command in steps if environment.CPU_WHEELS in command]
    assert len(cpu) == (platform == "linux" and not nvidia)
    assert all(" torch==2." in command for command in cpu)
    assert f"-r {environment.REQUIREMENTS}" in steps[-1]
    assert environment.stamp(environment.REQUIREMENTS).exists()


@pytest.mark.parametrize("said", ["No matching distribution found for torch", "ResolutionImpossible: for help"])
def test_where_the_index_of_cpu_wheels_has_none_the_installation_goes_on(monkeypatch, tmp_path, capsys, said):
    """pip says the second where constraints of the user's name torch as well."""

    def fails_for_cpu_wheels(command, *args, **options):
        if environment.CPU_WHEELS in command:
            return started([sys.executable, "-c", f"print('ERROR: {said}'); exit(1)"], *args, **options)
        return started([sys.executable, "-c", ""], *args, **options)

    started = subprocess.Popen
    monkeypatch.setattr(environment, "VENV", tmp_path)
    monkeypatch.setattr(environment, "has_nvidia", lambda: False)
    monkeypatch.setattr(environment.sys, "platform", "linux")
    monkeypatch.setattr(environment.subprocess, "Popen", fails_for_cpu_wheels)
    environment.install([environment.REQUIREMENTS], ["torch"])
    assert "or cannot be reached" in capsys.readouterr().out and environment.stamp(environment.REQUIREMENTS).exists()
    said = "something else"
    environment.stamp(environment.REQUIREMENTS).unlink()
    with pytest.raises(SystemExit, match="something else"):
        environment.install([environment.REQUIREMENTS], ["torch"])


@pytest.mark.parametrize(
    "said, remedy",
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
            "make room (3 GB",
        ),
        (
            "Error: [Errno 13] Permission denied: '/srv/class/.venv'\n",
            "/srv/class/.venv is not writable: make your own copy",
        ),
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError('<…>: Failed to establish "
            "a new connection: [Errno -3] Temporary failure in name resolution')': /simple/torch/\n"
            "ERROR: No matching distribution found for torch==2.13.0\n",
            "No network",
        ),
        ("ERROR: No matching distribution found for torch==2.13.0\n", "There is no torch==2.13.0 for this Python"),
        ("first\n" * 30 + "error: some other reason\n", "error: some other reason\nThe installation failed"),
    ],
)
def test_a_failed_installation_ends_with_the_remedy(said, remedy):
    told = environment.explain(said)
    assert remedy in told
    assert len(told.splitlines()) <= 16


def test_a_terminal_without_greek_letters_and_a_relative_archive(repo_copy):
    """A β in what is said ends in "?", not in a traceback; kernels, which run elsewhere, find the archive."""
    (repo_copy / "utils/cli/data.py").write_text(
        "import os\n\ndef main(args):\n    print(os.environ['IMDB_ARCHIVE'], 'β')\n", "utf8"
    )
    for encoding in ("cp1252", "cp437", "ascii"):
        done = start(repo_copy, PYTHONIOENCODING=encoding, PYTHONUTF8="0", IMDB_ARCHIVE="one.tar.gz")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split()[0] == str(repo_copy / "one.tar.gz")


def test_verbs_and_help(bare, capsys):
    """Help needs no environment."""
    for argv, status in ([], 0), (["--help"], 0), (["tets"], 2):
        assert main(argv) == status
        said = capsys.readouterr().out
        assert "usage: python3 -m utils VERB" in said
        assert said.startswith("There is no verb 'tets': did you mean test?\n") == (argv == ["tets"])
    for verb, (*_, meaning) in VERBS.items():
        with pytest.raises(SystemExit) as end:
            main([verb, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert end.value.code == 0 and f"usage: python3 -m utils {verb}" in said and meaning in said
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert {"--preset", "--epochs", "--seed", "--all", "--out", "--resume", "--record"} <= {
        *capsys.readouterr().out.split()
    }


@pytest.fixture
def bare(monkeypatch):
    """As if nothing were installed, and nothing may be."""
    monkeypatch.setattr(environment, "lacking", lambda packages: ["torch"])
    monkeypatch.setattr(environment, "installed", lambda files: False)
    monkeypatch.setattr(environment, "install", None)


@pytest.mark.parametrize(
    "line, complaint",
    [
        ("train --preset lektur", "invalid choice: 'lektur' (choose from"),
        ("train --seed 0 --epochs 0", "--epochs 0: at least one pass is needed"),
        ("compare encodre", "there is no preset or variant called encodre: choose from 'lecture'"),
        ("data now", "unrecognized arguments: now"),
        ("doctor now", "unrecognized arguments: now"),
        ("run notebooks/05_decoder.ipynb", "as in notebooks/05_encoder.ipynb"),
        ("run --force absent.ipynb", "as in notebooks/01_"),
        ("run --forc notebooks/05_encoder.ipynb", "--forc is not an option: --force stores"),
    ],
)
def test_what_is_misspelt_is_said_before_anything_is_installed(bare, capsys, line, complaint):
    with pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 2 and complaint in capsys.readouterr().err


def test_lab_as_root_is_refused_before_anything_is_installed(bare, capsys, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    with pytest.raises(SystemExit):
        main(["lab"])
    assert "in a container with --allow-root" in capsys.readouterr().err
    assert arguments.lab(["--allow-root"]) is None
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    assert arguments.lab([]) is None


def test_a_folder_that_cannot_be_written_is_named(bare, capsys, monkeypatch):
    """As root one may write everywhere, so `access` is asked instead of a folder made unwritable."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for line in "run", "run notebooks/01_hard_and_soft_attention.ipynb", "publish octocat/attention":
        with pytest.raises(SystemExit):
            main(line.split())
        assert "notebooks is not writable, so nothing can be stored" in capsys.readouterr().err
    monkeypatch.setattr(environment, "install", INSTALL)
    with pytest.raises(SystemExit, match=f"{environment.ROOT} is not writable, and .* lacks torch: make your own copy"):
        main(["data"])


def test_what_lab_and_test_start(monkeypatch):
    started = []
    monkeypatch.setattr(environment, "replace_process", started.extend)
    main(["lab", "--allow-root", "--no-browser"])
    assert started[:3] == [sys.executable, "-m", "jupyterlab"] and started[-1] == "--no-browser"
    assert "--ServerApp.ip=127.0.0.1" in started and not any("token" in option.lower() for option in started)

    monkeypatch.setattr(pytest, "main", lambda command: started.extend(command) or 3)
    started.clear()
    assert main(["test", "-x"]) == 3
    assert "--nbval" in started and started[-1] == "-x"
    named = {Path(word).resolve() for word in started if not word.startswith("-")}
    assert named == {*(environment.ROOT / "notebooks").glob("*.ipynb"), UTILS / "tests"}


def test_pre_commit_has_the_pinned_ruff():
    [pin] = re.findall("^ruff==.*$", environment.TEST_REQUIREMENTS.read_text("utf8"), re.MULTILINE)
    assert f" {pin}]" in (environment.ROOT / ".pre-commit-config.yaml").read_text()
