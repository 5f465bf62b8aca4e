"""What is wrong with a command, or asked about it, said before anything is installed. Standard library only."""

import ast
import os
import re
from pathlib import Path

from utils.cli import environment

FOLDER = environment.ROOT / "notebooks"


def problem(verb, arguments):
    """Why `verb` cannot be done with `arguments`, with the remedy; None if it can, as far as can be seen from here."""
    check = {"lab": lab, "run": run, "publish": publish, "train": train}.get(verb)
    return check and check(arguments)


def lab(arguments):
    if hasattr(os, "geteuid") and os.geteuid() == 0 and "--allow-root" not in arguments:
        return "JupyterLab does not start as root: start it as an ordinary user, or in a container with --allow-root."


def run(arguments):
    paths = [Path(name) for name in arguments if not name.startswith("-")]
    for path in paths:
        if not path.is_file():
            likely = [*FOLDER.glob(f"{path.name[:2]}*.ipynb"), *sorted(FOLDER.glob("*.ipynb"))][0]
            return f"{path} is no notebook: name one by its path, as in notebooks/{likely.name}, or none to run all."
    return unwritable({path.parent for path in paths} or {FOLDER})


def publish(arguments):
    return unwritable({FOLDER})


def unwritable(folders):
    for folder in folders:
        if not os.access(folder, os.W_OK):
            return f"{folder} cannot be written, so nothing can be stored: make a copy that is yours, and start there."


def train(arguments):
    found = re.search("--preset[= ]([^ ]*)", " ".join(arguments))
    if found and found[1] not in presets():
        return f"There is no preset {found[1]!r}: choose from {', '.join(presets())}."


def presets():
    """The names of all presets; read, because importing them takes torch."""
    tree = ast.parse((environment.ROOT / "utils" / "presets.py").read_text("utf8"))
    [table] = [node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "PRESETS"]
    return [key.value for key in table.keys]


def options(module):
    """What a verb's `--help` says of its options; read from its source, because importing it may take torch."""
    source = (environment.ROOT / "utils" / "cli" / f"{module}.py").read_text("utf8")
    return re.findall(r'add_argument\(\s*"([\w-]+)".*?help=f?"(.*?)"', source)
