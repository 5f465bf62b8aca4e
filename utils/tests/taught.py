"""What stands in notebook 06 alone, for tests: the translator and its beam, without running the rest."""

import ast

import nbformat

from utils import transformer
from utils.cli import notebooks

NAMES = ("new_table", "PlainTranslator", "Translator", "to_ids", "write", "beam_search")
PAD, START, END = range(3)


def definitions(notebook, names):
    """Of a notebook the classes and functions of these names, in their order, as one module."""
    book = nbformat.read(notebooks.FOLDER / notebook, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    sources = [cell.source for cell in code if "bootstrap" not in cell.metadata.get("tags", [])]
    nodes = [node for source in sources for node in ast.parse(source).body]
    return ast.Module([node for node in nodes if getattr(node, "name", None) in names], [])


space = vars(transformer) | {"PAD": PAD, "START": START, "END": END}
exec(compile(definitions("06_decoder.ipynb", NAMES), "06_decoder.ipynb", "exec"), space)
beam_search, write = space["beam_search"], space["write"]


def translator_of(source_words, target_words, dropout=0.0):
    """Notebook 06's translator, which from here on has these words instead of the notebook's."""
    space.update(source_words=source_words, target_words=target_words)
    return space["Translator"](dropout)
