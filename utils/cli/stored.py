"""What was only read and run stays on the disk as stored: Jupyter's hook for saving, and what it compares.

Without it, opening a notebook is enough to change it: JupyterLab writes its own metadata, drops alt texts, and stores
other pixels; git sees it, and so does `test`.
"""

import hashlib
from pathlib import Path

import nbformat

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def keep_stored(model, path, contents_manager, **_):
    """Jupyter's hook before saving `model` to `path`: where only outputs differ from those stored, keep those."""
    file = Path(contents_manager.root_dir, path.strip("/"))
    if model["type"] != "notebook" or not file.exists():
        return
    stored, saved = nbformat.read(file, as_version=4), nbformat.from_dict(model["content"])
    # The metadata tells who wrote it last: after an edit it is JupyterLab's, and then outputs are saved like all else.
    if stored.metadata == METADATA | {"source_sha256": source_sha256(stored)} and written(stored) == written(saved):
        model["content"] = stored


def written(book):
    """What an author writes: each cell's kind, text and tags."""
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in book.cells]


def source_sha256(book):
    """A fingerprint of the code, stored with the outputs: it tells when they are those of other code."""
    source = "\0".join(cell.source for cell in book.cells if cell.cell_type == "code")
    return hashlib.sha256(source.encode()).hexdigest()
