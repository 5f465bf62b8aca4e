"""What stands in one notebook alone, for tests: its classes and functions, without running the rest."""

import re

import nbformat

from utils.cli import notebooks


def taught(notebook, module, *names):
    """The definitions of `names` in `notebook`, which find in `module` of utils what they use."""
    space, wanted = dict(vars(module)), re.compile(rf"(class|def) ({'|'.join(names)})\(")
    for cell in nbformat.read(notebooks.FOLDER / notebook, as_version=4).cells:
        if cell.cell_type == "code" and wanted.match(cell.source):
            exec(compile(cell.source, notebook, "exec"), space)
    return [space[name] for name in names]
