"""The address of these notebooks stands in every first cell and badge, or in none."""

import re
import shutil
import types
from pathlib import Path

import nbformat
import pytest

from utils.cli import environment, notebooks, publish, site
from utils.tests.conftest import command
from utils.tests.test_notebooks import faults


@pytest.fixture
def repo_copy(tmp_path, monkeypatch):
    """A copy of notebooks and README, without an address."""
    shutil.copytree(notebooks.FOLDER, tmp_path / "notebooks", ignore=lambda *_: {".ipynb_checkpoints"})
    shutil.copy(publish.README, tmp_path)
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path / "notebooks")
    monkeypatch.setattr(publish, "README", tmp_path / "README.md")
    command("publish", ["--none"])
    return tmp_path


def contents(repo_copy):
    return {path.name: path.read_bytes() for path in (*notebooks.notebook_paths(), repo_copy / "README.md")}


def test_it_writes_and_takes_back(repo_copy):
    without = contents(repo_copy)
    assert command("publish", ["octocat/attention"]) == 0
    once = contents(repo_copy)
    assert command("publish", ["octocat/attention"]) == 0 and contents(repo_copy) == once
    for name, content in once.items():
        notebook = name if name.endswith("ipynb") else notebooks.notebook_paths()[0].name
        assert f"/github/octocat/attention/blob/main/notebooks/{notebook})".encode() in content
        assert f"/gh/octocat/attention/main?labpath=notebooks%2F{notebook})".encode() in content
        assert content.count(b"colab-badge.svg") == content.count(b"badge_logo.svg") == 1
    assert b"git clone https://github.com/octocat/attention attention " in once["README.md"]
    command("publish", ["other/place", "--branch", "dev/next"])
    for content in contents(repo_copy).values():
        assert b"other/place/blob/dev/next/" in content and b"other/place/dev%2Fnext?" in content
        assert b"octocat" not in content
    command("publish", ["--none"])
    assert contents(repo_copy) == without


def test_what_is_published_passes_the_tests_and_its_pages_lead_to_it(repo_copy, monkeypatch):
    """Every rule for stored notebooks holds; each page leads to its own notebook, and the index keeps its sentences."""
    monkeypatch.setattr(site, "draw_frames", lambda sources, folder: None)
    site.build(repo_copy / "before")
    command("publish", ["octocat/attention"])
    for path in notebooks.notebook_paths():
        assert list(faults(nbformat.read(path, as_version=4), path.name)) == []
    site.build(repo_copy / "after")
    for path in notebooks.notebook_paths():
        links = re.findall(
            r'href="(https?:[^"]*octocat[^"]*)"', (repo_copy / f"after/{path.stem}.html").read_text("utf8")
        )
        assert [link for link in links if not link.endswith(path.name)] == [] and len(links) == 2
    first, second = ((repo_copy / f"{when}/index.html").read_text("utf8") for when in ("before", "after"))
    assert first == second and "octocat" not in first


@pytest.mark.parametrize(
    "line", ["", "octocat", "a b/c", "octocat/attention --none", "https://github.com/o/r", "o/r --branch 'x y'"]
)
def test_nonsense_is_refused(repo_copy, line, capsys):
    before = contents(repo_copy)
    with pytest.raises(SystemExit):
        command("publish", line.replace("'", "").split(" ", 2) if "branch" in line else line.split())
    assert "error: " in capsys.readouterr().err and contents(repo_copy) == before


ADDRESSES = re.compile(
    r"(?:colab\.research\.google\.com/github|mybinder\.org/v2/gh)/([\w-]+/[\w.-]+)/|git clone (?:--\S+ )*(https:\S+)"
    r'|^REPOSITORY, BRANCH = "([^"]*)"',
    re.MULTILINE,
)


def named(root):
    """The addresses of these notebooks that files below `root` name: address → the files."""
    found = {}
    for path in [*root.glob("*.*"), *root.glob(".*/**/*.*"), *root.glob("[!.]*/**/*.*")]:
        if path.suffix in (".py", ".md", ".ipynb", ".yml", ".yaml", ".toml", ".json", ".txt", ".html"):
            text = path.read_text("utf8")
            if path.suffix == ".ipynb":
                text = "\n".join(cell.source for cell in nbformat.reads(text, as_version=4).cells)
            for groups in ADDRESSES.findall(text) if path.parent.name != "tests" else ():
                found.setdefault("".join(groups).removeprefix("https://github.com/"), set()).add(path.name)
    return {address: files for address, files in found.items() if address and "{" not in address}


def test_no_second_place_names_the_address(repo_copy):
    tracked = {path.name for path in notebooks.notebook_paths()} | {"README.md"}
    shutil.copytree(environment.ROOT / "utils" / "cli", repo_copy / "utils" / "cli")
    shutil.copytree(environment.ROOT / ".github", repo_copy / ".github")
    assert named(repo_copy) == {}
    command("publish", ["octocat/attention"])
    assert named(repo_copy) == {"octocat/attention": tracked}
    (repo_copy / ".github" / "more.md").write_text("https://mybinder.org/v2/gh/octocat/attention/main")
    assert named(repo_copy) == {"octocat/attention": tracked | {"more.md"}}


def colab(tmp_path, monkeypatch, cell, clone=True):
    """Run a bootstrap cell as on Colab, in an empty /content; returns the commands that it gave."""
    commands, content = [], tmp_path / "content"
    (content / "sample_data").mkdir(parents=True, exist_ok=True)
    lines = []
    for line in cell.replace("/content/", f"{content}/").splitlines():
        indent, magic = re.match(r"( *)([!%]?.*)", line).groups()
        lines.append(f"{indent}command(f{magic!r})" if magic[:1] in ("!", "%") else line)

    def command(text):
        commands.append(text)
        if text.startswith("!git clone") and clone:
            shutil.copytree(environment.ROOT / "utils", content / "attention" / "utils")
            (content / "attention" / "notebooks").mkdir()
        if text.startswith("%cd"):
            monkeypatch.chdir(text.split()[-1])

    monkeypatch.chdir(content)
    monkeypatch.setitem(__import__("sys").modules, "google.colab", types.ModuleType("google.colab"))
    exec("\n".join(lines), {"command": command})
    return commands


def test_on_colab_it_fetches_once_and_installs_no_torch(tmp_path, monkeypatch):
    cell = notebooks.bootstrap("octocat/attention", "dev")
    first = colab(tmp_path, monkeypatch, cell)
    assert first[0].endswith(f"--branch dev https://github.com/octocat/attention {tmp_path}/content/attention")
    assert Path.cwd() == tmp_path / "content" / "attention" / "notebooks"
    again = colab(tmp_path, monkeypatch, cell)  # after a restart, in /content
    assert [line.split()[0] for line in again] == ["%cd", "!pip"]
    assert not re.search(r"torch[^t]|numpy", again[-1])


def test_on_colab_without_an_address_or_with_a_wrong_one_it_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(AssertionError, match="upload the whole project"):
        colab(tmp_path, monkeypatch, notebooks.bootstrap())
    with pytest.raises(AssertionError, match="could not be fetched"):
        colab(tmp_path, monkeypatch, notebooks.bootstrap("octocat/nowhere"), clone=False)
