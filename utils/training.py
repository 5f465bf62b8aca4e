"""Training the review classifier: the five steps, what is kept, and the command `python3 -m utils train`."""

import argparse
import copy
import csv
import itertools
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from utils import datasets, text, written_atomically
from utils.transformer import ReviewClassifier

RESULTS = datasets.DATA / "results.tsv"
CHECKPOINTS = datasets.DATA / "checkpoints"
CACHE = datasets.DATA

# Frozen on validation by film, before the test set was looked at.
PRESETS = {
    "imdb": {
        "min_films": 20,
        "model": {"d_model": 64, "num_heads": 4, "d_hidden": 128, "num_layers": 1, "dropout": 0.3, "word_scale": 8.0},
        "fit": {"epochs": 6, "batch_size": 64, "max_tokens": 512, "learning_rate": 2e-3, "word_dropout": 0.5},
    },
    "toy": {
        "min_films": 1,
        "model": {"d_model": 64, "num_heads": 4, "d_hidden": 128, "num_layers": 1},
        "fit": {"epochs": 25, "batch_size": 32, "max_tokens": 128, "learning_rate": 2e-3, "word_dropout": 0.05},
    },
}


@dataclass(frozen=True)
class Task:
    """A data set as numbers, ready to train on.

    reviews, test: the two halves as they came; train, film, random: rows of `reviews` to train on, to validate by film
    and to validate at random; words, test_words: the halves as `text.Packed` numbers of `vocabulary`.
    """

    reviews: datasets.Reviews
    test: datasets.Reviews
    train: torch.Tensor
    film: torch.Tensor
    random: torch.Tensor
    vocabulary: text.Vocab
    words: text.Packed
    test_words: text.Packed


def prepare(name, min_films):
    """Load the set `name` ("imdb" or "toy"), hold out both validations, turn words into numbers. Returns a `Task`."""
    reviews, test = datasets.load(name)
    train, film, random = datasets.hold_out(reviews.films)
    tokens, test_tokens = (
        text.cached_tokens(half.texts, half.key, CACHE / f"tokens-{name}-{part}.pt")
        for part, half in (("train", reviews), ("test", test))
    )
    vocabulary = text.build_vocabulary(tokens, train, reviews.films, min_films)
    words, test_words = (text.encode(half, vocabulary) for half in (tokens, test_tokens))
    return Task(reviews, test, train, film, random, vocabulary, words, test_words)


def best_device():
    """The fastest device here: cuda (this process's own, under torchrun), mps or cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def autocast(device):
    """bfloat16 where it pays, on CUDA; elsewhere nothing changes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def batches(packed, labels, rows, *, batch_size, max_tokens, generator=None):
    """Yield words (B, T) and labels (B,) of `rows`: shuffled if given a generator, else from short to long."""
    for chosen in text.batch_rows(packed.lengths[rows], batch_size, generator):
        yield text.pad(packed, rows[chosen], max_tokens), labels[rows[chosen]]


def train_epoch(model, batches, optimizer, schedule):
    """One pass over the batches in five steps. Returns mean loss and accuracy, while training."""
    model.train()
    totals = 0
    for words, labels in batches:
        with autocast(words.device):
            scores = model(words)  # ① forward
            loss = F.cross_entropy(scores, labels)  # ② loss
        optimizer.zero_grad()  # ③ clear gradients
        loss.backward()  # ④ backward
        optimizer.step()  # ⑤ step
        schedule.step()
        right = (scores.argmax(1) == labels).sum()
        totals += torch.stack([loss.detach() * len(labels), right, right.new_tensor(len(labels))])
    loss, right, count = totals.tolist()
    return loss / count, right / count


@torch.inference_mode()
def predict(model, packed, rows, *, max_tokens, batch_size=256):
    """The model's scores (number of rows, classes) for reviews `rows`, in that order, on the CPU; no dropout."""
    model.eval()
    device = next(model.parameters()).device
    scores = []
    by_length = text.batch_rows(packed.lengths[rows], batch_size)
    for chosen in by_length:
        with autocast(device):
            scores.append(model(text.pad(packed, rows[chosen], max_tokens).to(device)).float().cpu())
    return torch.cat(scores)[torch.cat(by_length).argsort()]


def evaluate(model, packed, labels, rows, *, max_tokens):
    """Mean loss and accuracy on reviews `rows`."""
    scores = predict(model, packed, rows, max_tokens=max_tokens)
    wanted = labels[rows]
    return F.cross_entropy(scores, wanted).item(), (scores.argmax(1) == wanted).float().mean().item()


def fit(model, task, *, epochs, batch_size, max_tokens, learning_rate, word_dropout=0.0, seed=0):
    """Train on `task.train` and leave the model as it was after the epoch that was best on validation by film.

    AdamW under a one-cycle learning rate; each pass leaves out each word with probability `word_dropout`. Returns the
    history, a list with one dict per finished epoch. Ctrl-C ends the training early and keeps what was learned.
    Under torchrun every process takes its share of the batches, and `batch_size` holds for each.
    """
    device = next(model.parameters()).device
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    torch.manual_seed(seed + rank)  # dropout of its own in each process
    steps = math.ceil(len(task.train) / batch_size) // world
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * steps)
    generator = torch.Generator().manual_seed(seed)
    learner = DistributedDataParallel(model) if world > 1 else model
    words, labels = task.words.to(device), task.reviews.labels.to(device)
    history, best = [], None
    bar = tqdm(total=epochs * steps, unit=" steps", file=sys.stdout, leave=False, disable=rank > 0)
    try:
        for epoch in range(1, epochs + 1):
            began = time.perf_counter()
            order = batches(
                words.thin(word_dropout, generator), labels, task.train,
                batch_size=batch_size, max_tokens=max_tokens, generator=generator,
            )  # fmt: skip
            share = itertools.islice(order, rank, steps * world, world)
            loss, accuracy = train_epoch(learner, progress(share, bar), optimizer, schedule)
            seconds = time.perf_counter() - began
            row = {"epoch": epoch, "seconds": seconds, "reviews_per_s": len(task.train) / seconds}
            row |= {"train_loss": loss, "train_accuracy": accuracy}
            for name, rows in (("film", task.film), ("random", task.random)):
                row[f"{name}_loss"], row[f"{name}_accuracy"] = evaluate(
                    model, words, task.reviews.labels, rows, max_tokens=max_tokens
                )
            if all(row["film_accuracy"] > earlier["film_accuracy"] for earlier in history):
                best = copy.deepcopy(model.state_dict())
            history.append(row)
            bar.write(
                f"epoch {epoch}/{epochs}: training {accuracy:.3f}, validation by film {row['film_accuracy']:.3f}, "
                f"random {row['random_accuracy']:.3f}; {seconds:.1f} s, {row['reviews_per_s']:.0f} reviews/s",
                file=sys.stdout,
            )
    except KeyboardInterrupt:
        bar.write(f"stopped in epoch {len(history) + 1}: what was learned is kept", file=sys.stdout)
    finally:
        bar.close()
    if history:
        model.load_state_dict(best)
    return history


def progress(items, bar):
    for item in items:
        yield item
        bar.update()


def save_checkpoint(path, model, arguments, vocabulary, history):
    """Everything needed to use `model` again; `arguments` are those of ReviewClassifier after the number of words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    kept = {"arguments": arguments, "words": vocabulary.itos, "history": history, "weights": weights}
    with written_atomically(path, "wb") as file:
        torch.save(kept, file)


def load_checkpoint(path):
    """Returns the model, in evaluation mode on the CPU, and its words in the order of their numbers."""
    kept = torch.load(path, weights_only=True)
    model = ReviewClassifier(len(kept["words"]), **kept["arguments"])
    model.load_state_dict(kept["weights"])
    return model.eval(), kept["words"]


def record(row, path=RESULTS):
    """Put the result `row`, a dict, into the table at `path`, in the place of an earlier one of that set and seed."""
    rows = [row]
    if path.exists():
        with path.open(encoding="utf8", newline="") as file:
            earlier = csv.DictReader(file, delimiter="\t")
            rows += [old for old in earlier if (old["data"], old["seed"]) != (row["data"], str(row["seed"]))]
    rows.sort(key=lambda row: (row["data"], int(row["seed"])))
    with written_atomically(path) as file:
        table = csv.DictWriter(file, list(row), delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def train(data, seed, epochs, out, to_record):
    """One training as the preset says, one look at the test set. Returns the test accuracy, None if interrupted."""
    device, rank = best_device(), int(os.environ.get("RANK", 0))
    preset = PRESETS[data]
    settings = preset["fit"] | ({"epochs": epochs} if epochs else {})
    task = prepare(data, preset["min_films"])
    torch.manual_seed(seed)
    model = ReviewClassifier(len(task.vocabulary), **preset["model"]).to(device)
    history = fit(model, task, **settings, seed=seed)
    if rank == 0:
        save_checkpoint(out, model, preset["model"], task.vocabulary, history)
        print(f"checkpoint: {out}")
    if len(history) < settings["epochs"]:
        return None
    scores = predict(model, task.test_words, torch.arange(len(task.test)), max_tokens=settings["max_tokens"])
    right, mirror = (scores.argmax(1) == task.test.labels).float(), task.test.pairs >= 0
    test, on_mirror, on_others = (right[rows].mean().item() for rows in (mirror | ~mirror, mirror, ~mirror))
    seconds = sum(row["seconds"] for row in history)
    if rank == 0:
        if mirror.any():
            print(f"mirror pairs {on_mirror:.4f}, ordinary reviews {on_others:.4f}")
        print(f"test accuracy {test:.4f} on {len(right)} reviews, trained in {seconds:.0f} s on {device.type}")
    if rank == 0 and to_record:
        best = max(history, key=lambda row: row["film_accuracy"])
        row = {"data": data, "seed": seed, "epochs": settings["epochs"]}
        row |= {name: f"{best[f'{name}_accuracy']:.4f}" for name in ("film", "random")}
        row |= {"mirror": f"{on_mirror:.4f}" if mirror.any() else "", "test": f"{test:.4f}"}
        record(row | {"seconds": round(seconds), "device": device.type})
    return test


def main(argv):
    """Train the review classifier as notebook 07 does; under torchrun, in several processes at once."""
    parser = argparse.ArgumentParser(prog="python3 -m utils train", description=main.__doc__)
    parser.add_argument("--data", choices=PRESETS, default="imdb", help="the reviews to learn from (imdb)")
    parser.add_argument("--epochs", type=int, help="passes over the training reviews (as the preset says)")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="one training for each (0)")
    parser.add_argument("--out", type=Path, help="the checkpoint's file (data/checkpoints/DATA-SEED.pt)")
    parser.add_argument("--record", action="store_true", help="keep the figures in data/results.tsv")
    args = parser.parse_args(argv)
    if args.epochs is not None and args.epochs < 1:
        parser.error(f"--epochs {args.epochs}: one pass is the least")
    if args.out and len(args.seed) > 1:
        parser.error("--out is one file, and several seeds leave several checkpoints: leave out --out")
    if "RANK" in os.environ:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    accuracies = []
    for seed in args.seed:
        out = args.out or CHECKPOINTS / f"{args.data}-{seed}.pt"
        try:
            accuracies.append(train(args.data, seed, args.epochs, out, args.record))
        except (datasets.ImdbUnavailable, datasets.ImdbDamaged) as problem:
            print(problem)
            return 1
        if accuracies[-1] is None:
            return 130
    if distributed.is_initialized():
        distributed.destroy_process_group()
    if len(accuracies) > 1 and int(os.environ.get("RANK", 0)) == 0:
        print(f"mean of {len(accuracies)} seeds: {sum(accuracies) / len(accuracies):.4f}")
    return 0
