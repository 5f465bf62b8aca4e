"""`python3 -m utils publish OWNER/REPOSITORY`: write the address of the notebooks wherever it appears, or remove it."""

import re
from urllib.parse import quote

import nbformat

from utils.cli import environment, notebooks
from utils.files import atomic_write

README = environment.ROOT / "README.md"
BADGES = re.compile(r"(\[!\[Open in \w+\]\([^)]*\)\]\([^)]*\)\s+)+")


def main(args):
    """Write the address into all notebooks' badges and first cells, and into README; --none removes it."""
    for path in notebooks.notebook_paths():
        book = nbformat.read(path, as_version=4)
        [first] = [cell for cell in book.cells if "bootstrap" in cell.metadata.get("tags", [])]
        first.source = notebooks.bootstrap(args.repository, args.branch)
        book.cells[0].source = with_badges(book.cells[0].source, args.repository, args.branch, path.name)
        notebooks.write(notebooks.normalised(book), path)
    text = with_badges(README.read_text("utf8"), args.repository, args.branch, notebooks.notebook_paths()[0].name)
    address = f"https://github.com/{args.repository}" if args.repository else "ADDRESS"
    text = re.sub(r"git clone \S+", f"git clone {address}", text)
    with atomic_write(README) as file:
        file.write(text)
    print(f"{len(notebooks.notebook_paths())} notebooks and {README.name} now name {args.repository or 'no address'}")
    return 0


def without_badges(text):
    return BADGES.sub("", text, count=1)


def with_badges(text, repository, branch, name):
    """`text` with new badges below its title, or with none if there is no `repository`."""
    title, rest = without_badges(text).split("\n\n", 1)
    if not repository:
        return f"{title}\n\n{rest}"
    colab = f"https://colab.research.google.com/github/{repository}/blob/{branch}/notebooks/{name}"
    binder = f"https://mybinder.org/v2/gh/{repository}/{quote(branch, safe='')}?labpath=notebooks%2F{name}"
    return f"""{title}

[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})
[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})

{rest}"""
