"""One definition, two homes: what a notebook teaches and `utils` keeps is the same code."""

import ast

import nbformat
import pytest

from utils.cli import environment, notebooks

# name: (the one notebook that teaches it, the module of utils that keeps it)
HOMES = {
    "entropy": ("01_hard_and_soft_attention.ipynb", "attention.py"),
    "hardargmax": ("01_hard_and_soft_attention.ipynb", "attention.py"),
    "softargmax": ("01_hard_and_soft_attention.ipynb", "attention.py"),
    "MultiHeadAttention": ("04_multi_head_attention.ipynb", "attention.py"),
    "padding_mask": ("04_multi_head_attention.ipynb", "attention.py"),
    **dict.fromkeys(
        ("sinusoidal_positions", "EncoderLayer", "Encoder", "masked_pool"), ("05_encoder.ipynb", "transformer.py")
    ),
    **dict.fromkeys(("Cache", "DecoderLayer", "Decoder"), ("06_decoder.ipynb", "transformer.py")),
    "attend": ("03_queries_keys_values.ipynb", "attention.py"),
    "train_epoch": ("07_imdb.ipynb", "training.py"),
    **dict.fromkeys(("ReviewClassifier", "WordConvolution"), ("07_imdb.ipynb", "classifiers.py")),
}


def definition(source, name):
    """The code of `name` in `source`, without docstrings, comments and type hints; None where it is not."""
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            for part in ast.walk(node):
                if isinstance(part, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(part) is not None:
                    del part.body[0]
                if isinstance(part, ast.arg):
                    part.annotation = None
                if isinstance(part, ast.FunctionDef):
                    part.returns = None
            return ast.unparse(node)
    return None


@pytest.mark.parametrize("name", HOMES)
def test_the_two_are_the_same(name):
    notebook, module = HOMES[name]
    book = nbformat.read(notebooks.FOLDER / notebook, as_version=4)
    cells = [cell.source for cell in book.cells if "utils" in cell.metadata.get("tags", [])]
    taught = [one for one in (definition(source, name) for source in cells) if one]
    kept = definition((environment.ROOT / "utils" / module).read_text("utf8"), name)
    assert kept is not None
    assert taught == [kept], f"{notebook} and utils/{module} have another {name} each: change both"


def test_every_cell_that_is_kept_is_listed():
    for path in notebooks.notebook_paths():
        for cell in nbformat.read(path, as_version=4).cells:
            if "utils" in cell.metadata.get("tags", []):
                names = [node.name for node in ast.parse(cell.source).body]
                assert names and all(HOMES.get(name, [None])[0] == path.name for name in names)


def test_docstrings_and_hints_do_not_count_and_code_does():
    plain = definition("def f(x):\n    return x", "f")
    assert definition('def f(x: int) -> int:\n    """Said."""\n    return x', "f") == plain
    assert definition("def f(x):\n    return -x", "f") != plain
    assert definition("def g(x):\n    return x", "f") is None
