"""Other circumstances: notebooks run twice in one kernel, in another folder, locale, time zone; tests without POSIX."""

import copy
import os
import shutil
import subprocess
import sys

import nbformat
import pytest

from utils.cli import environment, notebooks

NOTEBOOKS = pytest.mark.parametrize("name", [path.name for path in notebooks.notebook_paths()])
ELSEWHERE = {"LC_ALL": "C", "TZ": "Asia/Kathmandu", "OMP_NUM_THREADS": "3"}
NOBODY = "http://127.0.0.1:9"  # listens there: 07 goes on with toy reviews at once


@pytest.fixture
def repo_copy(tmp_path):
    """A copy of what git has, in a folder whose name is no ASCII and holds a space."""
    root = tmp_path / "Übung eins"
    for folder in ("utils", "notebooks", "data"):
        ignored = shutil.ignore_patterns("__pycache__", "*.pt", "aclImdb*", "checkpoints")
        shutil.copytree(environment.ROOT / folder, root / folder, ignore=ignored)
    return root


def run_and_compare(path, **variables):
    """Run the notebook at `path` under nbval; AssertionError with what pytest says where an output differs."""
    own = {name: value for name, value in os.environ.items() if name != "IMDB_ARCHIVE"}
    own |= {"http_proxy": NOBODY, "https_proxy": NOBODY, "no_proxy": "localhost"} | variables
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *notebooks.NBVAL, str(path)]
    done = subprocess.run(command, env=own, cwd=path.parents[1], capture_output=True, text=True, encoding="utf8")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]


@pytest.mark.long
@NOTEBOOKS
def test_run_twice_in_one_kernel_it_prints_the_same(repo_copy, name):
    path = repo_copy / "notebooks" / name
    book = nbformat.read(path, as_version=4)
    again = copy.deepcopy(book.cells)
    for cell in again:
        cell.id += "-again"
    book.cells += again
    nbformat.write(book, path)
    run_and_compare(path)


@pytest.mark.long
@NOTEBOOKS
def test_elsewhere_it_prints_the_same(repo_copy, name):
    run_and_compare(repo_copy / "notebooks" / name, **ELSEWHERE)


def test_a_notebook_that_remembers_is_found(repo_copy):
    path = repo_copy / "notebooks" / "remembers.ipynb"
    source = "count = globals().get('count', 0) + 1\nprint(count)"
    output = nbformat.v4.new_output("stream", name="stdout", text="1\n")
    cells = [nbformat.v4.new_code_cell(source, execution_count=1, outputs=[output]) for _ in range(2)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells[:1], metadata=notebooks.METADATA), path)
    run_and_compare(path)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=notebooks.METADATA), path)
    with pytest.raises(AssertionError, match="1 failed, 1 passed"):
        run_and_compare(path)


@pytest.mark.parametrize(
    "what", [["--collect-only", "utils/tests"], ["utils/tests/test_files.py"]], ids=["all", "files"]
)
def test_tests_need_nothing_that_posix_alone_has(what):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--without-posix", *what]
    done = subprocess.run(command, cwd=environment.ROOT, capture_output=True, text=True, encoding="utf8")
    assert done.returncode == 0, done.stdout[-3000:]
