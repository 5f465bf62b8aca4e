"""Realistic mistakes, one at a time, each in a copy of the tree: do the tests notice?

    python3 -m utils.tests.mutants [FILE …]     (attention.py, cli/train.py, …; hours for all, minutes for one)

`mutants.tsv` has a line for each: the file, the text in it, what stands there instead (\\n is a new line, \\\\ a
backslash), and, where no test can notice it, the reason. `test_homes` is left out, for a mistake in a notebook stands
in `utils` as well: what catches it must be behaviour. Ends with 1 if a mutant lives without a reason.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from utils.cli import environment
from utils.files import read_table

MUTANTS = Path(__file__).with_suffix(".tsv")
LIMIT = 600  # seconds; whatever takes longer has been noticed
TESTS = {  # in the order in which they find most, soonest; other files have a test file of their own name
    "attention.py": ["attention", "transformer"],
    "transformer.py": ["transformer", "decoder", "twins"],
    "../notebooks/06_decoder.ipynb": ["decoder", "transformer"],  # the translator, which no other notebook uses
    "files.py": ["files", "text"],
    "checkpoints.py": ["checkpoints", "training"],
    "training.py": ["training", "checkpoints", "train"],
    "processes.py": ["train"],
    "datasets.py": ["datasets", "toy_reviews"],
}


def mutants():
    """All of `mutants.tsv` as (file, text, other text, reason)."""
    for row in read_table(MUTANTS):
        old, new = (row[name].replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\") for name in ("old", "new"))
        yield row["file"], old, new, row["lives"]


def mutated(source, old, new):
    """`source` with `new` instead of `old`; ValueError unless that stands in it exactly once."""
    if source.count(old) != 1:
        raise ValueError(f"{old!r} is found {source.count(old)} times, not once: mend its line in {MUTANTS.name}")
    return source.replace(old, new)


def noticed(tree, file):
    """Whether a test fails in `tree`; tests run in a child of this process, which has torch loaded already."""
    stem = Path(file).stem
    names = [f"utils/tests/test_{name}.py" for name in TESTS.get(file, [stem])]
    child = os.fork()
    if not child:
        os.chdir(tree)
        os.dup2(os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        for name in [name for name in sys.modules if name.split(".")[0] == "utils"]:
            del sys.modules[name]
        sys.path[:] = [tree, *(path for path in sys.path if path not in ("", str(environment.ROOT)))]
        os._exit(
            pytest.main(
                [
                    "-x",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    "-k",
                    "not export and not twice_the_same",
                    *filter(os.path.exists, names),
                ]
            )
        )
    ends = time.monotonic() + LIMIT
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            if code in (3, 4, 5):
                raise RuntimeError(f"pytest could not run (code {code}): {Path(tree, 'log').read_text()}")
            return code != 0
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return True


def main(files):
    chosen = [mutant for mutant in mutants() if not files or mutant[0] in files]
    caught, alive = 0, []
    with tempfile.TemporaryDirectory() as tree:
        leave = shutil.ignore_patterns("aclImdb*", "*.pt", "checkpoints", "__pycache__")
        for folder in ("utils", "data", "notebooks"):
            shutil.copytree(environment.ROOT / folder, Path(tree, folder), ignore=leave)
        shutil.copy(environment.ROOT / "pyproject.toml", tree)
        for file in dict.fromkeys(mutant[0] for mutant in chosen):
            if noticed(tree, file):
                raise RuntimeError(f"the tests of {file} fail as it is: {Path(tree, 'log').read_text()}")
        for file, old, new, reason in chosen:
            path = Path(tree, "utils", file)
            source = path.read_text("utf8")
            path.write_text(mutated(source, old, new), encoding="utf8")
            began = time.monotonic()
            found = noticed(tree, file)
            path.write_text(source, encoding="utf8")
            said = "caught" if found else f"lives: {reason}" if reason else "LIVES"
            print(f"{said:6} {time.monotonic() - began:4.0f} s  {file}: {old!r} → {new!r}", flush=True)
            caught += found
            if not found:
                alive.append(reason)
    print(f"{caught} of {len(chosen)} caught ({caught / len(chosen):.1%}), {len(alive)} live")
    return int(not all(alive))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    import hypothesis  # noqa: F401  what takes long to import, once for all children
    import matplotlib.pyplot  # noqa: F401
    import pooch  # noqa: F401
    import pytest
    import torch._dynamo
    import torchtext.vocab  # noqa: F401
    import xdist  # noqa: F401

    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))
