"""What is imported is declared in a requirements file, and nothing is declared twice; the workflows are sound."""

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata

import nbformat
import pytest

from utils.cli import environment, notebooks

FROM = metadata.packages_distributions()  # module → the distributions that bring it


def declared(path):
    """The distributions that a requirements file names, in lower case with hyphens."""
    names = re.findall(r"^([\w.-]+)==", path.read_text("utf8"), re.MULTILINE)
    return {name.lower().replace("_", "-") for name in names}


def imported(source):
    """The distributions that a source imports, wherever in it; Python's own and ours left out."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add(node.module.split(".")[0])
    modules -= sys.stdlib_module_names | {"utils", "data"}
    modules = {name for name in modules if not (environment.ROOT / "data" / f"{name}.py").exists()}
    return {name.lower().replace("_", "-") for module in modules for name in FROM.get(module, [f"absent {module}"])}


def sources(kind):
    """(name, source) of all files of one kind: what a reader's verbs and notebooks import, or tests and pages too."""
    authors = {"notebooks", "definitions", "publish", "site", "frames"}
    for path in sorted(environment.ROOT.glob("utils/**/*.py")):
        for_tests = "tests" in path.parts or path.stem in authors
        if for_tests == (kind == "tests"):
            yield path.name, path.read_text("utf8")
    for path in notebooks.notebook_paths() if kind == "readers" else ():
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and "bootstrap" not in cell.metadata.get("tags", []):
                yield path.name, cell.source


def test_what_a_reader_imports_is_in_requirements():
    found = {(name, package) for name, source in sources("readers") for package in imported(source)}
    allowed = declared(environment.REQUIREMENTS)
    assert {(name, package) for name, package in found if package not in allowed} == set()


def test_what_tests_and_pages_import_is_in_one_of_the_two():
    found = {(name, package) for name, source in sources("tests") for package in imported(source)}
    allowed = declared(environment.REQUIREMENTS) | declared(environment.TEST_REQUIREMENTS)
    assert {(name, package) for name, package in found if package not in allowed} == set()


def test_no_package_is_declared_twice_and_all_are_pinned():
    assert not declared(environment.REQUIREMENTS) & declared(environment.TEST_REQUIREMENTS)
    for path in (environment.REQUIREMENTS, environment.TEST_REQUIREMENTS):
        lines = [line for line in path.read_text("utf8").splitlines() if line and not line.startswith("#")]
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), lines


@pytest.mark.parametrize("source", ["import absent", "def f():\n    from absent.part import x"])
def test_an_import_that_is_not_declared_is_seen(source):
    assert imported(source) == {"absent absent"} and imported("import os, PIL.Image") == {"pillow"}


def zizmor(folder):
    found = shutil.which("zizmor", path=sysconfig.get_path("scripts")) or shutil.which("zizmor")
    if not found:
        pytest.skip("zizmor is not here")
    command = [found, "--offline", "--no-progress", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf8")


def test_the_workflows_are_sound_and_a_mistake_in_one_is_found(tmp_path):
    done = zizmor(environment.ROOT / ".github")
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copytree(environment.ROOT / ".github", tmp_path / ".github")
    path = tmp_path / ".github/workflows/notebooks.yml"
    path.write_text(
        path.read_text("utf8").replace("permissions:\n  contents: read", "permissions: write-all", 1), "utf8"
    )
    assert zizmor(tmp_path / ".github").returncode != 0
