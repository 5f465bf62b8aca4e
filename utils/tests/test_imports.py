"""Imports go one way: what is taught knows nothing of the command line, and nothing knows what stands on it."""

import ast
import importlib
from pathlib import Path

import nbformat
import pytest

from utils.cli import notebooks

UTILS = Path(__file__).parents[1]
# module: what of ours it imports
MAY = {
    "attention": set(),
    "files": set(),
    "plots": set(),
    "parity": set(),
    "presets": set(),
    "processes": set(),
    "transformer": {"attention"},
    "classifiers": {"transformer"},
    "text": {"files"},
    "imdb": {"files"},
    "datasets": {"imdb", "files"},
    "tasks": {"classifiers", "text", "datasets"},
    "checkpoints": {"classifiers", "files"},
    "training": {"text", "checkpoints", "processes"},
}


def imported(source):
    """The modules of `utils` that a source imports, wherever in it: "training", "cli.train", …; "" for utils itself."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module in PACKAGES else {node.module}
            )
    return {name.removeprefix("utils").removeprefix(".") for name in names if name.split(".")[0] == "utils"}


PACKAGES = ("utils", "utils.cli", "utils.tests")


@pytest.mark.parametrize("path", sorted(UTILS.glob("*.py")), ids=lambda path: path.stem)
def test_above_the_command_line(path):
    if path.stem == "__main__":
        assert imported(path.read_text("utf8")) == {"cli.arguments", "cli.environment"}
    else:
        assert imported(path.read_text("utf8")) == MAY.get(path.stem, set())


@pytest.mark.parametrize("path", sorted((UTILS / "cli").glob("*.py")), ids=lambda path: path.stem)
def test_the_command_line_has_no_circle(path):
    # Each may import those before it.
    order = "environment arguments lab stored data doctor definitions notebooks publish site train compare".split()
    before = order[: order.index(path.stem)] if path.stem in order else []
    assert {name for name in imported(path.read_text("utf8")) if name.startswith("cli")} <= {f"cli.{n}" for n in before}


@pytest.mark.parametrize("path", notebooks.notebook_paths(), ids=lambda path: path.stem)
def test_no_notebook_knows_the_command_line(path):
    assert not any(name.startswith("cli") for name in imported_by(path))


def imported_by(path):
    """The modules of `utils` that the notebook at `path` imports."""
    names = set()
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and "bootstrap" not in cell.metadata.get("tags", []):
            source = "\n".join(line for line in cell.source.splitlines() if not line.lstrip().startswith(("%", "!")))
            names |= imported(source)
    return names


def test_late_and_hidden_imports_are_seen():
    assert imported("def f():\n    from utils.cli import train, data") == {"cli.train", "cli.data"}
    assert imported("import utils.training\nimport torch") == {"training"}
    assert imported("from utils.text import pad\nfrom utils import text, files") == {"text", "files"}


@pytest.mark.parametrize("path", notebooks.notebook_paths(), ids=lambda path: path.stem)
def test_what_a_notebook_takes_from_utils_is_there(path):
    """A name that was changed in `utils` alone is found in seconds, not by a run of minutes."""
    modules, missing = {}, []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code" or "bootstrap" in cell.metadata.get("tags", []):
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "utils":
                found = importlib.import_module(node.module)
                for alias in node.names:
                    if node.module == "utils":
                        modules[alias.asname or alias.name] = importlib.import_module(f"utils.{alias.name}")
                    elif not hasattr(found, alias.name):
                        missing.append(f"{node.module}.{alias.name}")
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                module = modules.get(node.value.id)
                if module and not hasattr(module, node.attr):
                    missing.append(f"{node.value.id}.{node.attr}")
    assert missing == []
