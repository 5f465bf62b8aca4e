"""A notebook that was only read and run keeps its stored file: Jupyter's hook before saving, and what it compares.

Without this hook, running and saving a notebook changes the file: JupyterLab writes its own metadata, drops alt texts
and stores different pixels, which git and `test` would report.
"""

import hashlib
from pathlib import Path

import nbformat

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def keep_stored(model, path, contents_manager, **_):
    """Jupyter's hook before it saves `model` to `path`: if only outputs differ, keep the stored file."""
    file = Path(contents_manager.root_dir, path.strip("/"))
    if model["type"] != "notebook" or not file.exists():
        return
    stored, saved = nbformat.read(file, as_version=4), nbformat.from_dict(model["content"])
    # After an edit the metadata are JupyterLab's; from then on outputs are saved, too.
    if stored.metadata == METADATA | {"source_sha256": source_sha256(stored)} and written(stored) == written(saved):
        model["content"] = stored


def written(book):
    """What an author writes: each cell's kind, text and tags."""
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in book.cells]


def source_sha256(book):
    """A fingerprint of the code, stored with the outputs, which tells whether they belong to this code."""
    source = "\0".join(cell.source for cell in book.cells if cell.cell_type == "code")
    return hashlib.sha256(source.encode()).hexdigest()
