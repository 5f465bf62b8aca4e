"""Reading and running leaves a stored notebook as it is, byte for byte; editing does not."""

import asyncio
import copy

import nbformat
import pytest
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from utils.cli import lab as verb
from utils.cli import notebooks, stored
from utils.tests.test_notebooks import png


@pytest.fixture
def lab(tmp_path):
    """The part of Jupyter that saves, with the hook as `lab` gives it; `lab(book)` saves and returns what is stored."""
    path = tmp_path / "one.ipynb"
    figure = new_output("display_data", {"image/png": png(), "text/plain": "<Figure size 640x480 with 1 Axes>"})
    cells = [new_code_cell(f"print({i})", execution_count=i, outputs=[figure]) for i in range(1, 4)]
    book = new_notebook(cells=[part for cell in cells for part in (cell, new_markdown_cell("*A line.*"))])
    notebooks.write(notebooks.normalised(book), path)
    manager = AsyncLargeFileManager(root_dir=str(tmp_path), pre_save_hook="utils.cli.stored.keep_stored")
    assert "--ContentsManager.pre_save_hook=utils.cli.stored.keep_stored" in verb.OPTIONS

    def save(book):
        model = {"type": "notebook", "format": "json", "content": copy.deepcopy(book)}
        asyncio.run(manager.save(model, "one.ipynb"))
        return path.read_bytes()

    save.stored, save.book = path.read_bytes(), nbformat.read(path, as_version=4)
    return save


def as_jupyterlab_has_it(book):
    """What JupyterLab makes of a notebook by opening it and running it."""
    book.metadata.language_info["version"] = "3.11.7"
    for cell in book.cells:
        cell.metadata["scrolled"] = True
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = None, []


def test_what_was_read_and_run_is_left_as_it_is_stored(lab):
    as_jupyterlab_has_it(lab.book)
    assert lab(lab.book) == lab.stored
    assert lab(lab.book) == lab.stored  # once more


@pytest.mark.parametrize(
    "edit",
    [
        "book.cells[-1].source += ' more'",
        "book.cells[2].source += '\\n1 / 0'",
        "book.cells[2].metadata['tags'] = ['new']",
        "del book.cells[3]",
        "book.cells.reverse()",
    ],
)
def test_what_was_edited_is_saved_and_then_its_outputs_too(lab, edit):
    as_jupyterlab_has_it(lab.book)
    exec(edit, {"book": lab.book})
    assert nbformat.reads(lab(lab.book).decode(), as_version=4) == lab.book
    [first, *_] = [cell for cell in lab.book.cells if cell.cell_type == "code"]
    first.execution_count = 7  # run after the edit was saved
    assert nbformat.reads(lab(lab.book).decode(), as_version=4) == lab.book


def test_a_new_notebook_and_other_files_are_saved(lab, tmp_path):
    (tmp_path / "one.ipynb").unlink()
    assert nbformat.reads(lab(lab.book).decode(), as_version=4) == lab.book
    model = {"type": "file", "format": "text", "content": "a note"}
    assert stored.keep_stored(model, "note.txt", type("Manager", (), {"root_dir": tmp_path})) is None
