"""What a notebook teaches and `utils` keeps is the same code; `run` carries a change home."""

import shutil

import nbformat
import pytest

from utils.cli import definitions, environment, notebooks

TAUGHT = [(book, name) for book, names in definitions.TAUGHT.items() for name in names]


@pytest.mark.parametrize(("book", "name"), TAUGHT, ids=lambda one: one)
def test_the_two_are_the_same(book, name):
    cells = nbformat.read(notebooks.FOLDER / f"{book}.ipynb", as_version=4).cells
    sources = [definitions.definitions_of(cell.source) for cell in cells if "utils" in cell.metadata.get("tags", [])]
    [taught] = [found[name] for found in sources if name in found]
    module = environment.ROOT / "utils" / definitions.TAUGHT[book][name]
    kept = definitions.definitions_of(module.read_text("utf8"))[name]
    assert definitions.without_docstrings(taught) == definitions.without_docstrings(kept), (
        f"{module.name} differs: python3 -m utils run notebooks/{book}.ipynb"
    )


def test_every_cell_that_is_kept_is_listed():
    for path in notebooks.notebook_paths():
        for cell in nbformat.read(path, as_version=4).cells:
            if "utils" in cell.metadata.get("tags", []):
                names = definitions.definitions_of(cell.source)
                assert names and names.keys() <= definitions.TAUGHT[path.stem].keys()


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
    assert definitions.without_docstrings(
        "def f(x: int) -> int:\n    '''Said.'''\n    return x  # so"
    ) == definitions.without_docstrings("def f(x):\n    return x")
    assert definitions.without_docstrings(OLD) != definitions.without_docstrings(NEW)


def test_a_change_takes_the_code_of_the_new_and_the_docstrings_of_the_old():
    both = definitions.keep_docstrings(NEW, OLD)
    assert definitions.without_docstrings(both) == definitions.without_docstrings(NEW)
    assert "of several lines" in both and '"""Kept."""' in both and '"""New."""' in both and "Short" not in both


def test_what_is_taught_is_brought_home(tmp_path):
    for name in ("attention.py", "transformer.py"):
        shutil.copy(environment.ROOT / "utils" / name, tmp_path)
    book = nbformat.read(notebooks.FOLDER / "04_multi_head_attention.ipynb", as_version=4)
    assert definitions.copy_to_utils(book, "04_multi_head_attention", tmp_path) == []
    [cell] = [cell for cell in book.cells if "def padding_mask" in cell.source]
    cell.source = cell.source.replace("positions <", "positions <=")
    assert definitions.copy_to_utils(book, "04_multi_head_attention", tmp_path) == ["attention.py: padding_mask"]
    before = (environment.ROOT / "utils" / "attention.py").read_text("utf8")
    assert (tmp_path / "attention.py").read_text("utf8") == before.replace("(positions <", "(positions <=")
    cell.source += "\n\n\ndef unheard_of():\n    pass"
    with pytest.raises(ValueError, match="TAUGHT in .* does not say which module keeps unheard_of"):
        definitions.copy_to_utils(book, "04_multi_head_attention", tmp_path)


@pytest.mark.parametrize("absolute", [False, True])
def test_run_brings_it_home_by_either_path(monkeypatch, absolute):
    path, brought = notebooks.FOLDER / "04_multi_head_attention.ipynb", []
    book = nbformat.read(path, as_version=4)
    monkeypatch.setattr(notebooks, "execute", lambda path: book)
    monkeypatch.setattr(notebooks, "copy_to_utils", lambda book, name: brought.append(name) or ())
    monkeypatch.chdir(environment.ROOT)
    notebooks.run([str(path if absolute else path.relative_to(environment.ROOT))])
    assert brought == ["04_multi_head_attention"]
