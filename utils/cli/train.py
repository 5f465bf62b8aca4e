"""`python3 -m utils train`: one training for each preset and seed, and one look at the test set after each."""

import argparse
import contextlib
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import torch
from torch import distributed

from utils import checkpoints, datasets, presets, text, training
from utils.files import Damaged, read_table, write_table
from utils.processes import Team

RESULTS = datasets.DATA / "results.tsv"
CHECKPOINTS = datasets.DATA / "checkpoints"
KNOWN = (
    *(datasets.ImdbUnavailable, datasets.ImdbDamaged, checkpoints.CannotGoOn),
    *(FloatingPointError, torch.OutOfMemoryError, Damaged),
)
KEY = ("preset", "reviews", "seed")  # what tells the rows of results.tsv apart


def learn(preset, seed, *, hold_out=True, keep=None):
    """Train as the dict `preset` says. Returns the task, the model, the history, and a row of figures, not of the test.

    The row is None if the training was interrupted. `keep` is that of `training.fit`.
    """
    device, settings = training.best_device(), preset["fit"]
    task = presets.prepare(**preset["task"], hold_out=hold_out)
    model = presets.build(preset, task, seed).to(device)
    history = training.fit(model, task, **settings, seed=seed, keep=keep)
    if len(history) < settings["epochs"]:
        return task, model, history, None
    best = training.best_epoch(history)
    row = {"reviews": len(task.train_rows), "seed": seed, "epochs": len(history)}
    row |= {part: percent(best.get(f"{part}_accuracy")) for part in ("film", "random")}
    row["scrambled"] = percent(scrambled(model, task, settings["max_tokens"]) if hold_out else None)
    row["seconds"] = round(sum(epoch["seconds"] for epoch in history))
    return task, model, history, row | {"threads": torch.get_num_threads(), "device": device.type}


def percent(accuracy):
    """An accuracy as it stands in a table: "" for None."""
    return "" if accuracy is None else f"{accuracy:.4f}"


def scrambled(model, task, max_tokens):
    """Accuracy on validation by film with the words that the model reads of each review in random order."""
    words = text.scramble(task.words.head_and_tail(max_tokens), torch.Generator().manual_seed(0))
    return training.evaluate(model, words, task.reviews.labels, task.film_rows, max_tokens=max_tokens)[1]


def measure(name, seed, *, epochs=None, hold_out=True, out=None, to_record=False):
    """Train preset `name`, look at the test set once, keep a checkpoint; returns that accuracy, None if interrupted.

    It goes on from the training on its way beside the checkpoint, if there is one; that is deleted when all is kept. A
    training that was interrupted never takes the name of one that was not.
    """
    preset = presets.PRESETS[name]
    if epochs:
        preset = preset | {"fit": preset["fit"] | {"epochs": epochs}}
    out = out or checkpoint(name, seed, hold_out)
    task, model, history, row = learn(preset, seed, hold_out=hold_out, keep=on_its_way(out))
    first = Team().rank == 0  # under torchrun the first process writes
    if row is None:
        if first and history:
            keep_checkpoint(out.with_name(f"{out.stem}-interrupted.pt"), model, preset, task, history)
            print(f"It is that of epoch {training.best_epoch(history)['epoch']}. --resume goes on with this training.")
        return None
    every = torch.arange(len(task.test))
    scores = training.predict(model, task.test_words, every, max_tokens=preset["fit"]["max_tokens"])
    right, mirror = (scores.argmax(1) == task.test.labels).float(), task.test.pairs >= 0
    test, on_mirror, on_others = (right[rows].mean().item() for rows in (mirror | ~mirror, mirror, ~mirror))
    row |= {"mirror": percent(on_mirror) if mirror.any() else "", "test": percent(test)}
    if mirror.any():
        print(f"mirror pairs {on_mirror:.4f}, ordinary reviews {on_others:.4f}")
    print(
        f"test accuracy {test:.4f} on {len(right)} reviews, trained in {row['seconds']} s on {row['device']}",
        flush=True,
    )
    if first:
        if keep_checkpoint(out, model, preset, task, history):
            checkpoints.forget(on_its_way(out))
        if to_record:
            record({"preset": name} | row, RESULTS, KEY)
    return test


def checkpoint(name, seed, hold_out=True):
    """Where the checkpoint of such a training goes."""
    return CHECKPOINTS / f"{name}{'' if hold_out else '-all'}-{seed}.pt"


def on_its_way(out):
    """Where the training that will end in the checkpoint `out` is kept until then."""
    return out.with_name(f"{out.stem}-on-its-way.pt")


def keep_checkpoint(path, model, preset, task, history):
    """Write it and say so; where it cannot be written, say that, and lose nothing else. Returns whether it was."""
    try:
        checkpoints.save(path, model, preset["model"], task.vocabulary, history)
    except (OSError, RuntimeError) as problem:  # a full disk is a RuntimeError of torch's
        print(f"No checkpoint, for {path} could not be written: {problem}")
        return False
    print(f"checkpoint: {path}")
    return True


def record(row, path, key):
    """Put `row`, a dict, into the table at `path`, in place of one with the same `key`."""
    rows = [{name: str(value) for name, value in row.items()}]
    rows += [old for old in read_table(path) if any(old[name] != rows[0][name] for name in key)]
    write_table(
        path, sorted(rows, key=lambda row: [int(row[name]) if row[name].isdigit() else row[name] for name in key])
    )


def main(argv):
    """Train a review classifier and measure it once on the test reviews; under torchrun, in several processes."""
    parser = argparse.ArgumentParser(prog="python3 -m utils train", description=main.__doc__)
    parser.add_argument("--preset", choices=presets.PRESETS, default="encoder", help="model and settings (encoder)")
    parser.add_argument("--epochs", type=int, help="passes over the training reviews (as the preset says)")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="one training for each (0)")
    parser.add_argument("--all", action="store_true", help="train on all training reviews, with no validation")
    parser.add_argument("--out", type=Path, help="the checkpoint's file (data/checkpoints/PRESET-….pt)")
    parser.add_argument("--resume", action="store_true", help="go on with a training that was stopped")
    parser.add_argument("--record", action="store_true", help="keep the figures in data/results.tsv")
    args = parser.parse_args(argv)
    if not all(0 <= seed < 2**63 for seed in args.seed):
        parser.error("--seed takes numbers from 0 to 2^63 - 1")
    if args.epochs is not None and args.epochs < 1:
        parser.error(f"--epochs {args.epochs}: one pass is the least")
    if args.out and len(args.seed) > 1:
        parser.error("--out is one file, and several seeds leave several checkpoints: leave out --out")
    if problem := unwritable(args.out or CHECKPOINTS / "any.pt"):
        parser.error(f"{problem}: name another file with --out")
    return attempt(train_seeds, args)


def attempt(work, *arguments):
    """Do `work` and return its exit code; of a failure that is known, say what it is and what to do.

    Under torchrun only the first process speaks, and of a failure only the first that notices it.
    """
    store, rank = None, 0
    before = signal.signal(signal.SIGTERM, interrupt)  # as Ctrl-C
    try:
        if "RANK" in os.environ:
            if torch.cuda.is_available():
                torch.cuda.set_device(training.best_device())
            store, rank, size = next(distributed.rendezvous("env://"))
            backend = "nccl" if torch.cuda.is_available() else "gloo"
            distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere if rank else sys.stdout):
            code = work(*arguments)
        if store:
            distributed.destroy_process_group()
        return code
    except KNOWN as problem:
        said = problem
    except (RuntimeError, KeyboardInterrupt) as problem:
        # torchrun's SIGTERM may come while the loss is on its way to here.
        lost = problem.__context__ if isinstance(problem, KeyboardInterrupt) else problem
        if not (store and isinstance(lost, RuntimeError) and re.search("gloo|NCCL", str(lost))):
            raise
        said = "A process of this training was lost: the same command with --resume goes on after the last whole epoch."
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if store else before)  # torchrun sends one while we speak
    if store is None or store.add("said", 1) == 1:
        print(said, flush=True)
    return 1


def unwritable(path):
    """Why no file can be written to `path`, None if it can."""
    if path.exists() and not path.is_file():
        return f"{path} is no file"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            return None
    except OSError as problem:
        return str(problem)


def interrupt(*_):
    raise KeyboardInterrupt


def train_seeds(args):
    """One training for each seed; returns the exit code."""
    if distributed.is_initialized():
        first = int(os.environ["LOCAL_RANK"]) == 0  # on each machine it fetches and tokenises, then all read
        if not first:
            distributed.barrier()
        presets.prepare(**presets.PRESETS[args.preset]["task"])
        if first:
            distributed.barrier()
    accuracies = []
    for seed in seeds_left(args):
        options = {"epochs": args.epochs, "hold_out": not args.all, "out": args.out, "to_record": args.record}
        accuracies.append(measure(args.preset, seed, **options))
        if accuracies[-1] is None:
            return 130
    if len(accuracies) > 1:
        print(f"mean of {len(accuracies)} seeds: {sum(accuracies) / len(accuracies):.4f}")
    return 0


def seeds_left(args):
    """Those to train: with --resume from the one on, of which a training on its way is kept. CannotGoOn without one."""
    seeds, team = args.seed, Team()
    if team.rank == 0:
        paths = [on_its_way(args.out or checkpoint(args.preset, seed, not args.all)) for seed in args.seed]
        kept = [i for i, path in enumerate(paths) if path.exists()]
        if args.resume and not kept:
            raise checkpoints.CannotGoOn(f"there is no {paths[0]} to go on from: leave out --resume to begin")
        if kept and not args.resume:
            raise checkpoints.CannotGoOn(
                f"{paths[kept[0]]} is a training that was stopped: go on with --resume, or delete it to begin anew"
            )
        seeds = args.seed[kept[0] :] if kept else args.seed
    return team.from_first(seeds)
