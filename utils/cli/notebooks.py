"""Notebooks as files: testing, re-executing and storing them (`python3 -m utils test`, `run`)."""

import base64
import copy
import io
import os
import re
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbclient.output_widget import OutputWidget
from PIL import Image

from utils.cli import environment
from utils.cli.definitions import copy_to_utils
from utils.cli.stored import METADATA, source_sha256
from utils.files import atomic_write

FOLDER = environment.ROOT / "notebooks"
TESTS = environment.ROOT / "utils" / "tests"

# Cells with this tag may print something different each time: times, training logs, widgets.
IGNORED = "nbval-ignore-output"
# The outputs of cells with this tag are never stored, because they quote texts that others wrote.
PRIVATE = "private"
NBVAL = (
    "--nbval",
    "--nbval-current-env",
    "--nbval-cell-timeout=600",
    f"--nbval-sanitize-with={TESTS / 'nbval_sanitize.cfg'}",
)
SHARED_OUT = (
    "--numprocesses=auto",
    "--maxprocesses=4",
    "--no-loadscope-reorder",
)  # more processes would need over 8 GB of memory

# The first code cell of every notebook, without the address. Colab already has torch, numpy and all that torchtext
# needs but sentencepiece.
BOOTSTRAP = """\
# Every notebook begins with this cell, which makes `import utils` work.
import sys
from pathlib import Path

REPOSITORY, BRANCH = "", "main"  # for Colab: `python3 -m utils publish` writes them
if "google.colab" in sys.modules:
    if not Path("../utils").exists():
        folder = Path("/content/attention")
        if not folder.exists():
            assert REPOSITORY, f"REPOSITORY is empty: upload the whole project to {folder}"
            !git clone --quiet --depth 1 --branch {BRANCH} {REPOSITORY} {folder}
        assert folder.exists(), f"{REPOSITORY} could not be fetched: is this address right?"
        %cd -q {folder}/notebooks
    !pip install --quiet --no-deps torchtext==0.6.0 sentencepiece pooch
roots = [p for p in (Path.cwd(), *Path.cwd().parents) if (p / "utils/attention.py").exists()]
assert roots, f"no utils/ above {Path.cwd()}: put this notebook back into its folder, notebooks/"
root = roots[0]
sys.path.insert(0, str(root))"""


def bootstrap(repository=None, branch="main"):
    """The first code cell of a notebook that Colab finds at github.com/`repository`."""
    address = f"https://github.com/{repository}" if repository else ""
    return BOOTSTRAP.replace('"", "main"', f'"{address}", "{branch}"')


CELL_METADATA = ("tags", "jupyter", "cellView")  # the last two fold a cell, in JupyterLab and in Colab
# The outputs of solutions, and of cells that answer a "Predict", stay hidden until asked for.
PREDICTED = {"outputs_hidden": True}
WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL_OPTIONS = [
    # Pictures do not name the version of matplotlib that drew them.
    "--InlineBackend.print_figure_kwargs={'bbox_inches': 'tight', 'metadata': {'Software': None}}",
    "--IPKernelApp.log_level=ERROR",  # no warning that the kernel's port, on this machine only, is not encrypted
]


class SilentOutput(OutputWidget):
    """Takes what `interact` draws, as any front end does, but never writes to the kernel.

    nbclient's own class does, on the socket on which it waits for the cell's reply, and sometimes never gets the reply.
    """

    def sync_state(self):
        pass


def notebook_paths():
    """The paths of all notebooks, in order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def test(arguments):
    """Run pytest over all notebooks and the tests of `utils`; returns its exit code.

    Pytest's processes, one per core and at most four, share the files. Each computes with one thread, because more
    would slow the others down.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    command = [*NBVAL, *SHARED_OUT, *map(str, notebook_paths()), str(TESTS), *arguments]
    print("pytest", *command, flush=True)
    return pytest.main(command)


def run(arguments):
    """Re-execute the notebooks named in `arguments`, or all, and store them. Exits at the first that fails.

    A notebook that fails is left untouched. So is one whose checked outputs have not changed, unless --force is given.
    The definitions that it teaches are copied to their modules in `utils`.
    """
    force = "--force" in arguments
    names = [name for name in arguments if name != "--force"]
    for path in [Path(name) for name in names] or notebook_paths():
        print(path, flush=True)
        start = time.perf_counter()
        try:
            book = normalised(execute(path))
            copied = copy_to_utils(book, path.stem) if path.resolve().parent == FOLDER else ()
        except (CellControlSignal, DeadKernelError, ValueError) as problem:
            sys.exit(f"{problem}\n{path} was not changed.")
        changed = force or comparable(book) != comparable(nbformat.read(path, as_version=4))
        if changed:
            write(book, path)
        for name in copied:
            print(f"  {name} now matches this notebook")
        print(f"  {'stored' if changed else 'unchanged'} after {time.perf_counter() - start:.0f} s", flush=True)
    return 0


def execute(path):
    """The notebook at `path`, run from top to bottom by a new kernel in the notebook's folder."""
    book = nbformat.read(path, as_version=4)
    code = [(index, cell) for index, cell in enumerate(book.cells) if cell.cell_type == "code"]
    client = NotebookClient(
        book,
        kernel_name="python3",
        timeout=600,
        record_timing=False,
        shutdown_kernel="immediate",
        coalesce_streams=True,  # one output, however many pieces the kernel sent it in
        extra_arguments=KERNEL_OPTIONS,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.widget_registry = {"@jupyter-widgets/output": {"OutputModel": SilentOutput}}
    # A backend that the user has chosen elsewhere would leave the figures out.
    with client.setup_kernel(env={name: value for name, value in os.environ.items() if name != "MPLBACKEND"}):
        for count, (index, cell) in enumerate(code, 1):
            start = time.perf_counter()
            client.execute_cell(cell, index, execution_count=count)
            seconds, title = time.perf_counter() - start, cell.source.partition("\n")[0]
            print(f"  {count:3} of {len(code)} {seconds:6.1f} s  {title:.80}", flush=True)
    return book


def normalised(book):
    """`book` without anything that depends on when, where or in which editor it was run. Changes `book`.

    Outputs that answer a "Predict", and those of solutions, are hidden until the reader asks for them.
    Raises ValueError for what must never be stored: stderr, results on the toy set, a figure without a caption.
    """
    book.metadata = METADATA | {"source_sha256": source_sha256(book)}
    predicting = False
    for cell, following in zip(book.cells, [*book.cells[1:], None]):
        cell.metadata = {key: cell.metadata[key] for key in CELL_METADATA if key in cell.metadata}
        if cell.cell_type != "code":
            predicting = "**Predict" in cell.source
            continue
        tags = cell.metadata.get("tags", [])
        cell.outputs = [o for o in cell.outputs if PRIVATE not in tags and WIDGET not in o.get("data", {})]
        hide_outputs(cell, predicting or "solution" in tags)
        for output in cell.outputs:
            if output.get("name") == "stderr":
                raise ValueError(f"Cell {cell.execution_count} writes to stderr:\n{output.text}")
            if "source: toy" in output.get("text", "").splitlines():
                raise ValueError("The notebook ran on the toy reviews: `python3 -m utils data` fetches IMDB.")
            if "text" in output:
                output.text = re.sub(r"[^\n]*\r", "", output.text)  # keep only the final state of a progress bar
            if "data" in output:
                output.metadata = {}
            if "image/png" in output.get("data", {}):
                if not caption(following):
                    raise ValueError(f"Cell {cell.execution_count} draws a figure, but no caption follows it.")
                output.data["image/png"], size = smaller(output.data["image/png"])
                output.metadata = {"image/png": {"alt": caption(following)} | size}
    return book


def hide_outputs(cell, hide):
    """Hide a code cell's outputs when the notebook opens, or show them; its source stays as it is."""
    others = {key: value for key, value in cell.metadata.pop("jupyter", {}).items() if key not in PREDICTED}
    if jupyter := others | (PREDICTED if hide and cell.outputs else {}):
        cell.metadata["jupyter"] = jupyter


def smaller(encoded):
    """Re-encode a figure in at most 256 colours, which halves the file. Returns the new figure, and its size in points
    of two pixels.
    """
    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    if picture.mode != "P":
        file = io.BytesIO()
        picture.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
            file, "png", optimize=True
        )
        encoded = base64.b64encode(file.getvalue()).decode() + "\n"
    return encoded, dict(zip(("width", "height"), (size // 2 for size in picture.size)))


def caption(cell):
    """The caption in `cell`, which follows a figure: its first line, without * or _ around it; None without one."""
    if cell is None or cell.cell_type != "markdown" or cell.source.startswith("#"):
        return None
    line = cell.source.partition("\n")[0].strip()
    if line.startswith("*") and not line.endswith("*"):  # it goes on in the next line
        return None
    return line.strip("*_") or None


def comparable(book):
    """A copy of `book` without what a second run may change: outputs of ignored cells, pixels of pictures."""
    book = copy.deepcopy(book)
    for cell in book.cells:
        if IGNORED in cell.metadata.get("tags", []):
            cell.outputs = []
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = ""
    return book


def write(book, path):
    """Write `book` to `path`, all or nothing."""
    with atomic_write(path) as file:
        file.write(nbformat.writes(book) + "\n")
