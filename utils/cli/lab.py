"""`python3 -m utils lab`: JupyterLab at the first notebook. Slow imports are left to Jupyter itself."""

import os
import sys

import matplotlib.font_manager  # noqa: F401  builds its cache now; in a notebook, its notice would go to stderr
import zmq

from utils.cli import environment

# Switches off the question about news, for which there is no option; hides what would give an answer away.
CONFIG = environment.ROOT / "utils" / "cli" / "jupyter"
OPTIONS = [
    f"--ServerApp.root_dir={environment.ROOT}",
    "--ServerApp.ip=127.0.0.1",
    "--ContentsManager.pre_save_hook=utils.cli.stored.keep_stored",
    "--Application.log_level=ERROR",  # print nothing but the address
    "--LabApp.custom_css=True",
    f"--ServerApp.tornado_settings={{'static_custom_path': [{str(CONFIG / 'custom')!r}]}}",
]
if zmq.has("curve"):  # otherwise each kernel warns that it is not encrypted
    OPTIONS.append("--KernelManager.transport_encryption=auto")


def main(arguments):
    """Replace this process with JupyterLab. Only this machine can reach it, and it asks for a token that Jupyter
    creates.
    """
    first = min((environment.ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    place = f"--LabApp.default_url=/lab/tree/notebooks/{first.name}"
    others = os.environ.get("JUPYTER_CONFIG_PATH")
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, [str(CONFIG), others]))
    print("Press Ctrl-C twice to end JupyterLab and its kernels.", flush=True)
    environment.replace_process([sys.executable, "-m", "jupyterlab", *OPTIONS, place, *arguments])
