"""`python3 -m utils train`: one training run for each seed, and one measurement on the test set after each."""

import contextlib
import os
import re
import signal
import sys
import tempfile

import torch
from torch import distributed

from utils import checkpoints, datasets, tasks, text, training
from utils.files import CorruptFileError, read_table, write_table
from utils.presets import PRESETS
from utils.processes import ProcessGroup

RESULTS = datasets.DATA / "results.tsv"
CHECKPOINTS = datasets.DATA / "checkpoints"
EXPECTED_ERRORS = (  # each says what happened and what to do
    datasets.ImdbUnavailable,
    datasets.ImdbDamaged,
    checkpoints.ResumeError,
    CorruptFileError,
    FloatingPointError,
    torch.OutOfMemoryError,
)
KEY = ("preset", "reviews", "seed")  # of results.tsv


def train_preset(preset, seed, *, hold_out=True, keep=None):
    """Train as the dict `preset` says. Returns the task, the model, the history, and a row of results without the test.

    The row is None if training was interrupted. `keep` is passed to `training.fit`.
    """
    device, settings = training.best_device(), preset["fit"]
    task = tasks.prepare(**preset["task"], hold_out=hold_out)
    model = tasks.build(preset, task, seed).to(device)
    history = training.fit(model, task, **settings, seed=seed, keep=keep)
    if len(history) < settings["epochs"]:
        return task, model, history, None
    best = training.best_epoch(history)
    row = {"reviews": len(task.train_rows), "seed": seed, "epochs": len(history)}
    row |= {part: percent(best.get(f"{part}_accuracy")) for part in ("film", "random")}
    row["scrambled"] = percent(scrambled_accuracy(model, task, settings["max_tokens"]) if hold_out else None)
    row["seconds"] = round(sum(epoch["seconds"] for epoch in history))
    return task, model, history, row | {"threads": torch.get_num_threads(), "device": device.type}


def percent(accuracy):
    """An accuracy as it is written in tables; "" for None."""
    return "" if accuracy is None else f"{accuracy:.4f}"


def scrambled_accuracy(model, task, max_tokens):
    """Accuracy on the validation set of whole films if the words that the model reads are in random order."""
    words = text.scramble(task.words.head_and_tail(max_tokens), torch.Generator().manual_seed(0))
    return training.evaluate(model, words, task.reviews.labels, task.film_rows, max_tokens=max_tokens)[1]


def train_and_test(name, seed, *, epochs=None, hold_out=True, out=None, to_record=False):
    """Train preset `name`, measure it once on the test set, keep a checkpoint. Returns the test accuracy.

    If progress was saved next to the checkpoint, training continues from it; the progress is deleted when the
    checkpoint is written. If training is interrupted, the checkpoint gets a name that ends in -interrupted, and None is
    returned.
    """
    preset = PRESETS[name]
    if epochs:
        preset = preset | {"fit": preset["fit"] | {"epochs": epochs}}
    out = out or checkpoint_path(name, seed, hold_out)
    task, model, history, row = train_preset(preset, seed, hold_out=hold_out, keep=progress_path(out))
    first = ProcessGroup().rank == 0  # under torchrun the first process writes
    if row is None:
        if first and history:
            keep_checkpoint(out.with_name(f"{out.stem}-interrupted.pt"), model, preset, task, history)
            best = training.best_epoch(history)["epoch"]
            print(f"The checkpoint holds the model as after epoch {best}, its best. Use --resume to continue this run.")
        return None
    every = torch.arange(len(task.test))
    scores = training.predict(model, task.test_words, every, max_tokens=preset["fit"]["max_tokens"])
    right, mirror = (scores.argmax(1) == task.test.labels).float(), task.test.pairs >= 0
    test, on_mirror, on_others = (right[rows].mean().item() for rows in (mirror | ~mirror, mirror, ~mirror))
    row |= {"mirror": percent(on_mirror) if mirror.any() else "", "test": percent(test)}
    if mirror.any():
        print(f"accuracy on mirror pairs {on_mirror:.4f}, on ordinary reviews {on_others:.4f}")
    print(
        f"test accuracy {test:.4f} on {len(right)} reviews, trained in {row['seconds']} s on {row['device']}",
        flush=True,
    )
    if first:
        if keep_checkpoint(out, model, preset, task, history):
            checkpoints.delete_progress(progress_path(out))
        if to_record:
            record({"preset": name} | row, RESULTS, KEY)
    return test


def checkpoint_path(name, seed, hold_out=True):
    """The path of the checkpoint for this preset, seed and choice of validation."""
    return CHECKPOINTS / f"{name}{'' if hold_out else '-all'}-{seed}.pt"


def progress_path(out):
    """Where the progress of a training run is kept until its checkpoint `out` is written."""
    return out.with_name(f"{out.stem}-in-progress.pt")


def keep_checkpoint(path, model, preset, task, history):
    """Write a checkpoint and say so; if that is impossible, say why. Returns whether it was written."""
    try:
        checkpoints.save(path, model, preset["model"], task.vocabulary, history)
    except (OSError, RuntimeError) as problem:  # PyTorch raises RuntimeError if the disk is full
        print(f"There is no checkpoint, because {path} could not be written: {problem}")
        return False
    print(f"checkpoint: {path}")
    return True


def record(row, path, key):
    """Write `row`, a dict, into the table at `path`; it replaces a row with the same `key`."""
    rows = [{name: str(value) for name, value in row.items()}]
    rows += [old for old in read_table(path) if any(old[name] != rows[0][name] for name in key)]
    write_table(
        path, sorted(rows, key=lambda row: [int(row[name]) if row[name].isdigit() else row[name] for name in key])
    )


def main(args):
    """Train one classifier per seed and measure each once on the test reviews; under torchrun, in several processes."""
    if problem := unwritable(args.out or CHECKPOINTS / "any.pt"):
        print(f"{problem}: name another file with --out", file=sys.stderr)
        return 2
    return run_guarded(train_seeds, args)


def run_guarded(work, *arguments):
    """Do `work` and return its exit code. An expected error becomes a message that says what to do, and exit code 1.

    Under torchrun only the first process prints; a failure is reported by the process that notices it first.
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
    except EXPECTED_ERRORS as problem:
        message = problem
    except (RuntimeError, KeyboardInterrupt) as problem:
        # torchrun's SIGTERM may arrive while the error about a process that has died is being raised.
        lost = problem.__context__ if isinstance(problem, KeyboardInterrupt) else problem
        if not (store and isinstance(lost, RuntimeError) and re.search("gloo|NCCL", str(lost))):
            raise
        message = "A process was lost: the same command with --resume continues after the last whole epoch."
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if store else before)  # torchrun sends one while we print
    if store is None or store.add("said", 1) == 1:
        print(message, flush=True)
    return 1


def interrupt(*_):
    raise KeyboardInterrupt


def unwritable(path):
    """The reason why `path` cannot be written; None if it can be."""
    if path.exists() and not path.is_file():
        return f"{path} is not a file"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            return None
    except OSError as problem:
        return str(problem)


def train_seeds(args):
    """One training run per seed; returns the exit code."""
    if distributed.is_initialized():
        first = int(os.environ["LOCAL_RANK"]) == 0  # on each machine one process fetches and tokenises, then all read
        if not first:
            distributed.barrier()
        tasks.prepare(**PRESETS[args.preset]["task"])
        if first:
            distributed.barrier()
    accuracies = []
    for seed in seeds_left(args):
        options = {"epochs": args.epochs, "hold_out": not args.all, "out": args.out, "to_record": args.record}
        accuracies.append(train_and_test(args.preset, seed, **options))
        if accuracies[-1] is None:
            return 130
    if len(accuracies) > 1:
        print(f"mean test accuracy of {len(accuracies)} seeds: {sum(accuracies) / len(accuracies):.4f}")
    return 0


def seeds_left(args):
    """The seeds to train; with --resume, only the first one with saved progress and those after it.

    ResumeError if --resume finds no progress, or if there is progress that a new run would overwrite.
    """
    seeds, group = args.seed, ProcessGroup()
    if group.rank == 0:
        paths = [progress_path(args.out or checkpoint_path(args.preset, seed, not args.all)) for seed in seeds]
        kept = [i for i, path in enumerate(paths) if path.exists()]
        if args.resume and not kept:
            raise checkpoints.ResumeError(f"there is no {paths[0]} to continue from: leave out --resume to begin")
        if kept and not args.resume:
            raise checkpoints.ResumeError(
                f"{paths[kept[0]]} holds the progress of a training run: continue it with --resume, or delete the file"
            )
        seeds = seeds[kept[0] :] if kept else seeds
    return group.broadcast(seeds)
