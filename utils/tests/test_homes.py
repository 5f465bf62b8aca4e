"""What a notebook teaches and `utils` keeps is the same code; `run` carries a change home."""

import shutil

import nbformat
import pytest

from utils.cli import environment, homes, notebooks

TAUGHT = [(book, name) for book, names in homes.HOMES.items() for name in names]


@pytest.mark.parametrize(("book", "name"), TAUGHT, ids=lambda one: one)
def test_the_two_are_the_same(book, name):
    cells = nbformat.read(notebooks.FOLDER / f"{book}.ipynb", as_version=4).cells
    sources = [homes.definitions(cell.source) for cell in cells if "utils" in cell.metadata.get("tags", [])]
    [taught] = [found[name] for found in sources if name in found]
    module = environment.ROOT / "utils" / homes.HOMES[book][name]
    kept = homes.definitions(module.read_text("utf8"))[name]
    assert homes.bare(taught) == homes.bare(kept), f"{module.name} differs: python3 -m utils run notebooks/{book}.ipynb"


def test_every_cell_that_is_kept_is_listed():
    for path in notebooks.notebook_paths():
        for cell in nbformat.read(path, as_version=4).cells:
            if "utils" in cell.metadata.get("tags", []):
                names = homes.definitions(cell.source)
                assert names and names.keys() <= homes.HOMES[path.stem].keys()


OLD = '''class C:
    """A long docstring,

    of several lines.
    """

    @staticmethod
    def f(x: int):
        """Kept."""
        return x
'''
NEW = '''class C:
    """Short."""

    @staticmethod
    def f(x):
        return -x  # and a comment

    def g(self):
        """New."""
'''


def test_docstrings_and_hints_do_not_count_and_code_does():
    assert homes.bare("def f(x: int) -> int:\n    '''Said.'''\n    return x  # so") == homes.bare(
        "def f(x):\n    return x"
    )
    assert homes.bare(OLD) != homes.bare(NEW)


def test_a_change_takes_the_code_of_the_new_and_the_docstrings_of_the_old():
    both = homes.keep_docstrings(NEW, OLD)
    assert homes.bare(both) == homes.bare(NEW)
    assert "of several lines" in both and '"""Kept."""' in both and '"""New."""' in both and "Short" not in both


def test_what_is_taught_is_brought_home(tmp_path):
    for name in ("attention.py", "transformer.py"):
        shutil.copy(environment.ROOT / "utils" / name, tmp_path)
    book = nbformat.read(notebooks.FOLDER / "04_multi_head_attention.ipynb", as_version=4)
    assert homes.bring_home(book, "04_multi_head_attention", tmp_path) == []
    [cell] = [cell for cell in book.cells if "def padding_mask" in cell.source]
    cell.source = cell.source.replace("positions <", "positions <=")
    assert homes.bring_home(book, "04_multi_head_attention", tmp_path) == ["attention.py: padding_mask"]
    before = (environment.ROOT / "utils" / "attention.py").read_text("utf8")
    assert (tmp_path / "attention.py").read_text("utf8") == before.replace("(positions <", "(positions <=")
