"""`python3 -m utils lab`: JupyterLab at the first notebook. What takes long to load is left to Jupyter itself."""

import os
import sys

import matplotlib.font_manager  # noqa: F401  builds its cache now: in a notebook, the notice would go to stderr
import zmq

from utils.cli import environment

CONFIG = environment.ROOT / "utils" / "cli" / "jupyter"  # no question about news, which has no option
OPTIONS = [
    f"--ServerApp.root_dir={environment.ROOT}",
    "--ServerApp.ip=127.0.0.1",
    "--ContentsManager.pre_save_hook=utils.cli.stored.keep_stored",
    "--Application.log_level=ERROR",  # the address alone
    *["--KernelManager.transport_encryption=auto"] * zmq.has("curve"),  # or each kernel warns that it is not encrypted
]


def main(arguments):
    """Become JupyterLab, for this machine only; Jupyter makes a token of its own."""
    first = min((environment.ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    place = f"--LabApp.default_url=/lab/tree/notebooks/{first.name}"
    others = os.environ.get("JUPYTER_CONFIG_PATH")
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, [str(CONFIG), others]))
    print("Ctrl-C, twice, ends JupyterLab and its kernels.", flush=True)
    environment.replace_process([sys.executable, "-m", "jupyterlab", *OPTIONS, place, *arguments])
