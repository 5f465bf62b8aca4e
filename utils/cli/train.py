"""`python3 -m utils train`: one training for each preset and seed, and one look at the test set after each."""

import argparse
import os
from pathlib import Path

import torch
from torch import distributed

from utils import checkpoints, datasets, presets, text, training
from utils.files import read_table, write_table

RESULTS = datasets.DATA / "results.tsv"
CHECKPOINTS = datasets.DATA / "checkpoints"
KEY = ("preset", "reviews", "seed")  # what tells the rows of results.tsv apart


def learn(preset, seed, *, hold_out=True):
    """Train as the dict `preset` says. Returns the task, the model, the history, and a row of figures, not of the test.

    The row is None if the training was interrupted.
    """
    device, settings = training.best_device(), preset["fit"]
    task = presets.prepare(**preset["task"], hold_out=hold_out)
    model = presets.build(preset, task, seed).to(device)
    history = training.fit(model, task, **settings, seed=seed)
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
    """Train preset `name`, keep a checkpoint, look at the test set once; returns that accuracy, None if interrupted."""
    preset, rank = presets.PRESETS[name], int(os.environ.get("RANK", 0))
    preset |= {"fit": preset["fit"] | ({"epochs": epochs} if epochs else {})}
    task, model, history, row = learn(preset, seed, hold_out=hold_out)
    if rank == 0:
        out = out or CHECKPOINTS / f"{name}-{len(task.train_rows)}-{seed}.pt"
        checkpoints.save(out, model, preset["model"], task.vocabulary, history)
        print(f"checkpoint: {out}")
    if row is None:
        return None
    every = torch.arange(len(task.test))
    scores = training.predict(model, task.test_words, every, max_tokens=preset["fit"]["max_tokens"])
    right, mirror = (scores.argmax(1) == task.test.labels).float(), task.test.pairs >= 0
    test, on_mirror, on_others = (right[rows].mean().item() for rows in (mirror | ~mirror, mirror, ~mirror))
    row |= {"mirror": percent(on_mirror) if mirror.any() else "", "test": percent(test)}
    if rank == 0:
        if mirror.any():
            print(f"mirror pairs {on_mirror:.4f}, ordinary reviews {on_others:.4f}")
        print(f"test accuracy {test:.4f} on {len(right)} reviews, trained in {row['seconds']} s on {row['device']}")
        if to_record:
            record({"preset": name} | row, RESULTS, KEY)
    return test


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
    parser.add_argument("--out", type=Path, help="the checkpoint's file (data/checkpoints/PRESET-REVIEWS-SEED.pt)")
    parser.add_argument("--record", action="store_true", help="keep the figures in data/results.tsv")
    args = parser.parse_args(argv)
    if args.epochs is not None and args.epochs < 1:
        parser.error(f"--epochs {args.epochs}: one pass is the least")
    if args.out and len(args.seed) > 1:
        parser.error("--out is one file, and several seeds leave several checkpoints: leave out --out")
    try:
        return train_seeds(args)
    except (datasets.ImdbUnavailable, datasets.ImdbDamaged) as problem:
        print(problem)
        return 1


def train_seeds(args):
    """One training for each seed; returns the exit code."""
    if "RANK" in os.environ:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    accuracies = []
    options = {"epochs": args.epochs, "hold_out": not args.all, "out": args.out, "to_record": args.record}
    for seed in args.seed:
        accuracies.append(measure(args.preset, seed, **options))
        if accuracies[-1] is None:
            return 130
    if distributed.is_initialized():
        distributed.destroy_process_group()
    if len(accuracies) > 1 and int(os.environ.get("RANK", 0)) == 0:
        print(f"mean of {len(accuracies)} seeds: {sum(accuracies) / len(accuracies):.4f}")
    return 0
