"""`python3 -m utils lab`: JupyterLab at the first notebook. What was only read and run stays on the disk as stored.

Without `keep_stored`, opening a notebook is enough to change it: JupyterLab writes its own metadata, drops alt texts,
and stores other pixels; git sees it, and so does `test`.
"""

import hashlib
import os
import sys
from pathlib import Path

import matplotlib.font_manager  # noqa: F401  builds its cache now: in a notebook, the notice would go to stderr
import nbformat
import zmq

from utils.cli import environment

CONFIG = environment.ROOT / "utils" / "cli" / "jupyter"  # no question about news, which has no option
OPTIONS = [
    f"--ServerApp.root_dir={environment.ROOT}",
    "--ServerApp.ip=127.0.0.1",
    "--ContentsManager.pre_save_hook=utils.cli.lab.keep_stored",
    "--Application.log_level=ERROR",  # the address alone
    *["--KernelManager.transport_encryption=auto"] * zmq.has("curve"),  # or each kernel warns that it is not encrypted
]
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# For whoever imports this module and starts kernels: those of this environment, not of the home directory.
os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")


def main(arguments):
    """Become JupyterLab, for this machine only; Jupyter makes a token of its own."""
    first = min((environment.ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    place = f"--LabApp.default_url=/lab/tree/notebooks/{first.name}"
    others = os.environ.get("JUPYTER_CONFIG_PATH")
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, [str(CONFIG), others]))
    print("Ctrl-C, twice, ends JupyterLab and its kernels.", flush=True)
    environment.replace_process([sys.executable, "-m", "jupyterlab", *OPTIONS, place, *arguments])


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
