"""The command line: python3 -m utils VERB, from the repository's root."""

import difflib
import importlib
import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036  checked here, in syntax that an older Python can still read
    sys.exit(
        f"Python 3.11 or newer is needed, but {sys.executable} is {sys.version_info[0]}.{sys.version_info[1]}: "
        "install one from https://www.python.org/downloads and start again with it, as in `python3.13 -m utils lab`."
    )

from utils.cli import arguments, environment
from utils.cli.environment import LIBRARY, NOTEBOOKS, TESTS

VERBS = {  # verb: module of utils.cli, function, what it needs, help
    "lab": ("lab", "main", NOTEBOOKS, "open JupyterLab at the first notebook [options of jupyter lab]"),
    "test": ("notebooks", "test", TESTS, "check notebooks' stored outputs and utils [--browser] [options of pytest]"),
    "run": ("notebooks", "run", TESTS, "re-execute notebooks and store their outputs [--force] [NOTEBOOK ...]"),
    "train": ("train", "main", LIBRARY, "train a review classifier, and measure it once on the test reviews"),
    "compare": ("compare", "main", LIBRARY, "do the training runs that notebook 07's tables still lack"),
    "data": ("data", "main", LIBRARY, "fetch and check IMDB before a class"),
    "publish": ("publish", "main", TESTS, "write the address OWNER/REPOSITORY into badges and first cells"),
    "site": ("site", "main", TESTS, "build static pages of all notebooks, to read without a kernel"),
    "doctor": ("doctor", "main", (), "print ten lines: what is here, what is missing, and how to get it"),
}


def main(argv):
    """Do what `argv` says, in an environment that has the requirements; returns the exit code."""
    verb, *rest = argv or ["--help"]
    if verb not in VERBS:
        asked = verb in ("-h", "--help")
        if not asked:
            near = difflib.get_close_matches(verb, VERBS, 1)
            print(f"There is no verb {verb!r}{f': did you mean {near[0]}?' if near else '.'}\n")
        print("usage: python3 -m utils VERB ...   (VERB --help says more)\n")
        for name, (*_, meaning) in VERBS.items():
            print(f"  {name:7} {meaning}")
        return 0 if asked else 2
    module, function, packages, meaning = VERBS[verb]
    args = arguments.parse(verb, meaning, rest)
    environment.enter(argv, packages)
    return getattr(importlib.import_module(f"utils.cli.{module}"), function)(args)


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # on a terminal that cannot show β, it becomes "?", not a traceback
    if os.environ.get("IMDB_ARCHIVE"):
        os.environ["IMDB_ARCHIVE"] = os.path.abspath(os.environ["IMDB_ARCHIVE"])  # notebooks' kernels run elsewhere
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
