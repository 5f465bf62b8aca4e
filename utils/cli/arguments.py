"""The arguments of each verb; errors in them are reported before anything is installed. Standard library only."""

import argparse
import os
import re
from pathlib import Path

from utils.cli import environment
from utils.presets import PRESETS, VARIANTS

FOLDER = environment.ROOT / "notebooks"
REPOSITORY = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})/[A-Za-z0-9._-]{1,100}"


def parse(verb, meaning, argv):
    """The parsed arguments of `verb`: a Namespace, or `argv` itself for verbs that pass it on.

    Exits with code 0 after --help, and with code 2 and the remedy if something is wrong.
    """
    parser = argparse.ArgumentParser(prog=f"python3 -m utils {verb}", description=meaning)
    if verb in CHECKS:
        if {"-h", "--help"} & {*argv}:
            print(f"usage: python3 -m utils {verb} ...\n\n{meaning}")
            parser.exit()
        if problem := CHECKS[verb](argv):
            parser.exit(2, problem + "\n")
        return argv
    PARSERS.get(verb, lambda parser: None)(parser)
    args = parser.parse_args(argv)
    if problem := PROBLEMS.get(verb, lambda args: None)(args):
        parser.error(problem)
    return args


def lab(argv):
    if hasattr(os, "geteuid") and os.geteuid() == 0 and "--allow-root" not in argv:
        return "JupyterLab does not start as root: start it as an ordinary user, or in a container with --allow-root."


def run(argv):
    if unknown := [name for name in argv if name.startswith("-") and name != "--force"]:
        return f"{unknown[0]} is not an option: --force stores a notebook even if no checked output has changed."
    paths = [Path(name) for name in argv if not name.startswith("-")]
    for path in paths:
        if not path.is_file():
            likely = [*FOLDER.glob(f"{path.name[:2]}*.ipynb"), *sorted(FOLDER.glob("*.ipynb"))][0]
            return f"{path} is not a notebook: name one by its path, as in notebooks/{likely.name}, or none to run all."
    return unwritable({path.parent for path in paths} or {FOLDER})


def unwritable(folders):
    for folder in folders:
        if not os.access(folder, os.W_OK):
            return f"{folder} is not writable, so nothing can be stored: copy the repository, and start there."


def train(parser):
    parser.add_argument("--preset", choices=PRESETS, default="encoder", help="model and settings (default: encoder)")
    parser.add_argument("--epochs", type=int, help="passes over the training reviews (default: as the preset says)")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="one training run for each (default: 0)")
    parser.add_argument("--all", action="store_true", help="train on all training reviews, without validation")
    parser.add_argument("--out", type=Path, help="file for the checkpoint (default: data/checkpoints/PRESET-SEED.pt)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted training run")
    parser.add_argument("--record", action="store_true", help="write the results to data/results.tsv")


def train_problem(args):
    if not all(0 <= seed < 2**63 for seed in args.seed):
        return "--seed takes numbers from 0 to 2^63 - 1"
    if args.epochs is not None and args.epochs < 1:
        return f"--epochs {args.epochs}: at least one pass is needed"
    if args.out and len(args.seed) > 1:
        return "--out names one file, but several seeds write several checkpoints: omit --out"


def compare(parser):
    names = ["lecture", "encoder", "convolution", *VARIANTS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of: {', '.join(map(repr, names))}")
    parser.add_argument("--seed", type=int, nargs="+", default=list(range(5)), help="seeds (default: 0 1 2 3 4)")
    parser.set_defaults(known=names)


def compare_problem(args):
    if unknown := set(args.names) - set(args.known):
        return (
            f"there is no preset or variant called {', '.join(unknown)}: choose from {', '.join(map(repr, args.known))}"
        )


def publish(parser):
    parser.add_argument("repository", nargs="?", metavar="OWNER/REPOSITORY", help="on github.com")
    parser.add_argument("--branch", default="main", help="branch (default: main)")
    parser.add_argument("--none", action="store_true", help="remove the address and the badges")


def publish_problem(args):
    if args.none == bool(args.repository):
        return "give OWNER/REPOSITORY, or --none"
    if args.repository and not re.fullmatch(REPOSITORY, args.repository):
        return f"{args.repository!r} is not OWNER/REPOSITORY, as in octocat/attention"
    if not re.fullmatch(r"[\w./-]+", args.branch):
        return f"{args.branch!r} is not a valid branch name"
    return unwritable({FOLDER})


CHECKS = {"lab": lab, "run": run, "test": lambda argv: None}  # their arguments are passed on
PARSERS = {"train": train, "compare": compare, "publish": publish}
PROBLEMS = {"train": train_problem, "compare": compare_problem, "publish": publish_problem}
