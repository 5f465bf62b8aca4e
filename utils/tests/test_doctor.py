"""Ten lines: what is here, and for what is missing the remedy."""

import shutil
import sys
from collections import namedtuple

import pytest

from utils.cli import doctor, environment


@pytest.fixture
def repo_copy(tmp_path, monkeypatch):
    """A checkout with IMDB, room, and this Python."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "imdb.pt").write_text("")
    monkeypatch.setattr(doctor, "DATA", tmp_path / "data")
    monkeypatch.delenv("IMDB_ARCHIVE", raising=False)
    return tmp_path


@pytest.fixture
def sound(monkeypatch):
    """As if all packages could be imported, in no time."""
    monkeypatch.setattr(doctor, "PROBE", "import sys\nfor name in sys.argv[1:]: print('[\"1\", true]')")


def said(capsys):
    return {line[4:17].strip(): (line[:2], line[17:]) for line in capsys.readouterr().out.splitlines()}


def test_where_all_is_well_it_says_so_in_ten_lines(repo_copy, capsys):
    assert doctor.main([]) == 0
    lines = said(capsys)
    assert len(lines) == 10 and all(sign == "ok" for sign, _ in lines.values())
    assert lines["torch"][1].startswith("2.") and "threads" in lines["torch"][1]
    assert lines["Python"][1].endswith(sys.executable)


def test_without_an_environment_nothing_is_installed_and_the_remedy_said(repo_copy, capsys, monkeypatch):
    monkeypatch.setattr(environment, "lacking", lambda packages: ["torch"])
    monkeypatch.setattr(environment, "VENV", repo_copy / ".venv")
    assert doctor.main([]) == 1
    lines = said(capsys)
    for name in ("environment", "torch", "torchtext", "jupyterlab"):
        assert lines[name][0] == "!!" and "python3 -m utils lab" in lines[name][1]
    assert not (repo_copy / ".venv").exists()


def test_a_broken_package_is_quoted(repo_copy, capsys, monkeypatch):
    broken = doctor.PROBE.replace("import torch\n", "raise OSError('libtorch.so is gone')\n", 1)
    monkeypatch.setattr(doctor, "PROBE", broken.replace("import torchtext", "").replace("torchtext.__v", "json.__v"))
    assert doctor.main([]) == 1
    assert "libtorch.so is gone: delete" in said(capsys)["torch"][1]


def test_a_package_that_crashes_python_is_named_and_hides_no_other(repo_copy, capsys, monkeypatch):
    broken = doctor.PROBE.replace("import torch\n", "import os; os._exit(7)\n", 1)
    monkeypatch.setattr(doctor, "PROBE", broken)
    assert doctor.main([]) == 1
    lines = said(capsys)
    assert len(lines) == 10 and lines["torch"] == (
        "!!",
        "not usable: Python ends with code 7: delete .venv and run python3 -m utils lab",
    )
    assert lines["torchtext"][0] == lines["jupyterlab"][0] == "ok"


def test_imdb(repo_copy, sound, capsys, monkeypatch):
    (repo_copy / "data" / "imdb.pt").unlink()
    assert doctor.main([]) == 1 and "python3 -m utils data" in said(capsys)["IMDB"][1]
    monkeypatch.setenv("IMDB_ARCHIVE", str(repo_copy / "missing.tar.gz"))
    assert doctor.main([]) == 1 and "no such file" in said(capsys)["IMDB"][1]
    (repo_copy / "missing.tar.gz").write_text("")
    assert doctor.main([]) == 0
    monkeypatch.delenv("IMDB_ARCHIVE")
    (repo_copy / "data" / "aclImdb_v1.tar.gz").write_text("")
    assert doctor.main([]) == 0


def test_a_full_disk(repo_copy, sound, capsys, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**28))
    assert doctor.main([]) == 1 and said(capsys)["disk"] == (
        "!!",
        f"0.2 GiB free in {environment.ROOT}: make room, because 1.0 GiB is needed",
    )
