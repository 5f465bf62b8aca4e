"""Definitions that a notebook teaches, in cells tagged `utils`: `run` copies them to the modules of `utils`."""

import ast
import subprocess
import sys

from utils.cli import environment
from utils.files import atomic_write

# the notebook that teaches these definitions: {name: the module of utils that keeps it}
TAUGHT = {
    "01_hard_and_soft_attention": dict.fromkeys(("softargmax", "hardargmax", "entropy"), "attention.py"),
    "03_queries_keys_values": dict.fromkeys(("attend", "check_sizes", "check_mask"), "attention.py"),
    "04_multi_head_attention": dict.fromkeys(("MultiHeadAttention", "padding_mask"), "attention.py"),
    "05_encoder": dict.fromkeys(("sinusoidal_positions", "EncoderLayer", "Encoder", "masked_pool"), "transformer.py"),
    "06_decoder": dict.fromkeys(("KVCache", "DecoderLayer", "Decoder"), "transformer.py"),
    "07_imdb": {"train_epoch": "training.py"}
    | dict.fromkeys(("ReviewClassifier", "WordConvolution"), "classifiers.py"),
}


def copy_to_utils(book, name, root=environment.ROOT / "utils"):
    """Copy the definitions that the notebook `name` teaches to their modules in `root`, if the two differ.

    Docstrings, comments and type hints do not count as a difference; the docstrings of `utils` stay. Returns what was
    changed. ValueError if `TAUGHT` names no module for one of them.
    """
    changed = []
    for cell in book.cells:
        for definition, source in (
            definitions_of(cell.source).items() if "utils" in cell.metadata.get("tags", []) else ()
        ):
            if definition not in TAUGHT.get(name, {}):
                raise ValueError(f"TAUGHT in utils/cli/definitions.py does not say which module keeps {definition}")
            path = root / TAUGHT[name][definition]
            module = path.read_text("utf8")
            kept = definitions_of(module)[definition]
            if without_docstrings(source) != without_docstrings(kept):
                with atomic_write(path) as file:
                    file.write(module.replace(kept, keep_docstrings(source, kept)))
                subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", path], check=True)
                changed.append(f"{path.name}: {definition}")
    return changed


def definitions_of(source):
    """{name: source} of the classes and functions at the top of a source."""
    lines = source.splitlines()
    nodes = [node for node in ast.parse(source).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    first = {node.name: min([node.lineno, *(one.lineno for one in node.decorator_list)]) - 1 for node in nodes}
    return {node.name: "\n".join(lines[first[node.name] : node.end_lineno]) for node in nodes}


def without_docstrings(source):
    """The code of a definition, without docstrings, comments and type hints."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
            del node.body[0]
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef):
            node.returns = None
    return ast.unparse(tree)


def keep_docstrings(new, old):
    """The definition `new` with the docstrings that the definition `old` has."""
    lines, kept = new.splitlines(), docstrings(old)
    for path, (first, last, _) in sorted(docstrings(new).items(), key=lambda item: -item[1][0]):
        if kept.get(path, ((), (), ()))[2]:
            lines[first:last] = kept[path][2]
    return "\n".join(lines)


def docstrings(source):
    """{(names): (first line, line after the last, lines)} of each docstring in a definition; no lines where there is no
    docstring.
    """
    lines, found = source.splitlines(), {}

    def visit(node, names):
        for part in ast.iter_child_nodes(node):
            if isinstance(part, (ast.FunctionDef, ast.ClassDef)):
                body, has_one = part.body[0], ast.get_docstring(part) is not None
                first = body.lineno - 1
                last = body.end_lineno if has_one else first
                found[*names, part.name] = first, last, lines[first:last]
                visit(part, (*names, part.name))

    visit(ast.parse(source), ())
    return found
