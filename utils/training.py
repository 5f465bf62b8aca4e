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
from torch.optim import lr_scheduler
from tqdm import tqdm

from utils import datasets, text, written_atomically
from utils.classifiers import LectureClassifier, PhraseClassifier
from utils.transformer import ReviewClassifier

RESULTS = datasets.DATA / "results.tsv"
CHECKPOINTS = datasets.DATA / "checkpoints"
CACHE = datasets.DATA

KINDS = {kind.__name__: kind for kind in (LectureClassifier, ReviewClassifier, PhraseClassifier)}

PHRASES = {
    "task": {"name": "imdb", "min_films": 5},
    "kind": "PhraseClassifier",
    "start": 0.05,
    "fit": {"epochs": 4, "batch_size": 64, "max_tokens": 512, "learning_rate": 2e-3}
    | {"schedule": "linear", "table_rate": 0.04},
}
# All frozen on validation by film, before the test set was looked at; `lecture` is the published notebook's.
PRESETS = {
    "lecture": {
        "task": {"name": "imdb", "tokenizer": "spaces", "max_words": 50_000, "first": 200},
        "kind": "LectureClassifier",
        "model": {"d_model": 32, "num_heads": 2, "d_hidden": 128, "num_layers": 3},
        "fit": {"epochs": 10, "batch_size": 164, "max_tokens": 200, "learning_rate": 1e-3, "schedule": "constant"},
    },
    "encoder": {
        "task": {"name": "imdb", "min_films": 20},
        "kind": "ReviewClassifier",
        "model": {"d_model": 64, "num_heads": 4, "d_hidden": 128, "num_layers": 1, "dropout": 0.3, "word_scale": 8.0},
        "fit": {"epochs": 6, "batch_size": 64, "max_tokens": 512, "learning_rate": 2e-3, "word_dropout": 0.5},
    },
    "quick": PHRASES
    | {
        "model": {"S": 8, "M": 0, "ahead": 4.0, "content": False, "dropout": 0.3, "word_dropout": 0.2},
        "fit": PHRASES["fit"] | {"epochs": 2},
    },
    "default": PHRASES | {"model": {"S": 64, "M": 64, "ahead": 4.0, "dropout": 0.3, "word_dropout": 0.2}},
    "best": PHRASES
    | {
        "model": {"S": 64, "M": 512, "ahead": 8.0, "dropout": 0.3, "word_dropout": 0.2},
        "task": PHRASES["task"] | {"hold_out": False},
    },
    "toy": {
        "task": {"name": "toy", "min_films": 1},
        "kind": "ReviewClassifier",
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


def prepare(name, *, min_films=None, max_words=None, tokenizer="basic_english", first=None, hold_out=True):
    """Load the set `name` ("imdb" or "toy"), hold out both validations, turn words into numbers. Returns a `Task`.

    The vocabulary is of words in at least `min_films` films, or else of the `max_words` most frequent. `first` cuts
    each review after so many tokens. Without `hold_out` all training reviews are trained on, and validations are empty.
    """
    reviews, test = datasets.load(name)
    train, film, random = datasets.hold_out(reviews.films)
    if not hold_out:
        train, film, random = torch.arange(len(reviews)), *torch.empty(2, 0, dtype=torch.int64)
    kept = name if tokenizer == "basic_english" else f"{name}-{tokenizer}"
    tokens, test_tokens = (
        text.cached_tokens(half.texts, half.key, CACHE / f"tokens-{kept}-{part}.pt", tokenizer)
        for part, half in (("train", reviews), ("test", test))
    )
    if min_films:
        vocabulary = text.build_vocabulary(tokens, train, reviews.films, min_films)
    else:
        vocabulary = text.frequent_words(tokens, train, max_words)
    words, test_words = (text.encode(half, vocabulary) for half in (tokens, test_tokens))
    if first:
        words, test_words = words.heads(first), test_words.heads(first)
    return Task(reviews, test, train, film, random, vocabulary, words, test_words)


def log_odds(task):
    """How much a word speaks for "liked" by itself (words,): log P(word | liked) - log P(word | not liked).

    In the training reviews; a film counts once for each label, so that its own words do not pass for praise. 1 is added
    to every count.
    """
    films = task.reviews.films.unique(return_inverse=True)[1]
    inside = torch.zeros(len(films), dtype=torch.bool)
    inside[task.train] = True
    inside, side = (each.repeat_interleave(task.words.lengths) for each in (inside, 2 * films + task.reviews.labels))
    num_words = len(task.vocabulary)
    occurs = (side * num_words + task.words.ids)[inside].unique()  # (film, label, word), each once
    word, label = occurs % num_words, occurs // num_words % 2
    counts = torch.stack([word[label == one].bincount(minlength=num_words) for one in (0, 1)]) + 1.0
    negative, positive = (counts / counts.sum(1, keepdim=True)).log()
    odds = positive - negative
    odds[text.PAD] = 0.0
    return odds


def build(preset, task, seed):
    """The preset's model for the words of `task`, as it is before training."""
    torch.manual_seed(seed)
    model = KINDS[preset["kind"]](len(task.vocabulary), **preset["model"])
    if "start" in preset:
        model.start_from(log_odds(task), preset["start"])
    return model


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


class Together:
    """Several optimizers, or several schedules, as one."""

    def __init__(self, *parts):
        self.parts = parts

    def zero_grad(self):
        for part in self.parts:
            part.zero_grad()

    def step(self):
        for part in self.parts:
            part.step()


SCHEDULES = {
    "constant": lambda optimizer, steps: lr_scheduler.ConstantLR(optimizer, factor=1),
    "linear": lambda optimizer, steps: lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 100) * (1 - step / steps)
    ),
    "one-cycle": lambda optimizer, steps: lr_scheduler.OneCycleLR(
        optimizer, optimizer.param_groups[0]["lr"], total_steps=steps
    ),
}


def optimize(model, steps, *, learning_rate, schedule="one-cycle", table_rate=None):
    """AdamW, and Adagrad at `table_rate` for the model's tables, if any; returns optimizer and schedule.

    A rare word's row gets a gradient now and then: Adagrad divides it by the root of what that entry has had so far
    (Duchi et al., 2011), and touches no other row.
    """
    parameters = dict(model.named_parameters())
    tables = [parameters.pop(name) for name in getattr(model, "TABLES", ())]
    optimizers = [torch.optim.AdamW(parameters.values(), lr=learning_rate, fused=True)]
    if tables:
        torch.sparse.check_sparse_tensor_invariants.disable()  # which is the default, but with a warning
        optimizers.append(torch.optim.Adagrad(tables, lr=table_rate, initial_accumulator_value=1e-6))
    return Together(*optimizers), Together(*(SCHEDULES[schedule](optimizer, steps) for optimizer in optimizers))


def fit(model, task, *, epochs, batch_size, max_tokens, word_dropout=0.0, seed=0, **rates):
    """Train on `task.train` and leave the model as it was after the epoch that was best on validation by film.

    Where there is no validation, as it was at the end. `rates` are those of `optimize`; each pass leaves out each word
    with probability `word_dropout`. Returns the history, a list with one dict per finished epoch. Ctrl-C ends the
    training early and keeps what was learned. Under torchrun every process takes its share of the batches, and
    `batch_size` holds for each.
    """
    device = next(model.parameters()).device
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    torch.manual_seed(seed + rank)  # dropout of its own in each process
    steps = math.ceil(len(task.train) / batch_size) // world
    optimizer, schedule = optimize(model, epochs * steps, **rates)
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
            said = f"training {accuracy:.3f}"
            for name, rows, title in (("film", task.film, "validation by film"), ("random", task.random, "random")):
                if len(rows):
                    row[f"{name}_loss"], row[f"{name}_accuracy"] = evaluate(
                        model, words, task.reviews.labels, rows, max_tokens=max_tokens
                    )
                    said += f", {title} {row[f'{name}_accuracy']:.3f}"
            if not len(task.film) or all(row["film_accuracy"] > earlier["film_accuracy"] for earlier in history):
                best = copy.deepcopy(model.state_dict())
            history.append(row)
            bar.write(
                f"epoch {epoch}/{epochs}: {said}; {seconds:.1f} s, {row['reviews_per_s']:.0f} reviews/s",
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
    """Everything needed to use `model` again; `arguments` are those it was made with after the number of words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    kept = {
        "kind": type(model).__name__,
        "arguments": arguments,
        "words": vocabulary.itos,
        "history": history,
        "weights": weights,
    }
    with written_atomically(path, "wb") as file:
        torch.save(kept, file)


def load_checkpoint(path):
    """Returns the model, in evaluation mode on the CPU, and its words in the order of their numbers."""
    kept = torch.load(path, weights_only=True)
    model = KINDS[kept["kind"]](len(kept["words"]), **kept["arguments"])
    model.load_state_dict(kept["weights"])
    return model.eval(), kept["words"]


def record(row, path=RESULTS):
    """Put the result `row`, a dict, into the table at `path`, replacing that of the same preset and seed."""
    rows = [row]
    if path.exists():
        with path.open(encoding="utf8", newline="") as file:
            earlier = csv.DictReader(file, delimiter="\t")
            rows += [old for old in earlier if (old["preset"], old["seed"]) != (row["preset"], str(row["seed"]))]
    rows.sort(key=lambda row: (row["preset"], int(row["seed"])))
    with written_atomically(path) as file:
        table = csv.DictWriter(file, list(row), delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def train(name, seed, epochs, out, to_record):
    """One training as the preset says, one look at the test set. Returns the test accuracy, None if interrupted."""
    device, rank = best_device(), int(os.environ.get("RANK", 0))
    preset = PRESETS[name]
    settings = preset["fit"] | ({"epochs": epochs} if epochs else {})
    task = prepare(**preset["task"])
    began = time.perf_counter()
    model = build(preset, task, seed).to(device)
    seconds = time.perf_counter() - began
    history = fit(model, task, **settings, seed=seed)
    if rank == 0:
        save_checkpoint(out, model, preset["model"], task.vocabulary, history)
        print(f"checkpoint: {out}")
    if len(history) < settings["epochs"]:
        return None
    scores = predict(model, task.test_words, torch.arange(len(task.test)), max_tokens=settings["max_tokens"])
    right, mirror = (scores.argmax(1) == task.test.labels).float(), task.test.pairs >= 0
    test, on_mirror, on_others = (right[rows].mean().item() for rows in (mirror | ~mirror, mirror, ~mirror))
    seconds += sum(row["seconds"] for row in history)
    if rank == 0:
        if mirror.any():
            print(f"mirror pairs {on_mirror:.4f}, ordinary reviews {on_others:.4f}")
        print(f"test accuracy {test:.4f} on {len(right)} reviews, trained in {seconds:.0f} s on {device.type}")
    if rank == 0 and to_record:
        row = {"preset": name, "seed": seed, "epochs": settings["epochs"]} | validations(history)
        row |= {"mirror": f"{on_mirror:.4f}" if mirror.any() else "", "test": f"{test:.4f}"}
        record(row | {"seconds": round(seconds), "device": device.type})
    return test


def validations(history):
    """Both accuracies after the epoch that was kept, as text; empty where nothing was held out."""
    best = max(history, key=lambda row: row.get("film_accuracy", 0.0))
    return {part: f"{best[f'{part}_accuracy']:.4f}" if "film_accuracy" in best else "" for part in ("film", "random")}


def main(argv):
    """Train a review classifier and measure it once on the test reviews; under torchrun, in several processes."""
    parser = argparse.ArgumentParser(prog="python3 -m utils train", description=main.__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="default", help="model and settings (default)")
    parser.add_argument("--epochs", type=int, help="passes over the training reviews (as the preset says)")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="one training for each (0)")
    parser.add_argument("--out", type=Path, help="the checkpoint's file (data/checkpoints/PRESET-SEED.pt)")
    parser.add_argument("--record", action="store_true", help="keep the figures in data/results.tsv")
    parser.add_argument(
        "--ladder", nargs="*", metavar="RUNG", help="instead: measure the ladder's rungs that data/ladder.tsv lacks"
    )
    args = parser.parse_args(argv)
    if args.epochs is not None and args.epochs < 1:
        parser.error(f"--epochs {args.epochs}: one pass is the least")
    if args.out and len(args.seed) > 1:
        parser.error("--out is one file, and several seeds leave several checkpoints: leave out --out")
    try:
        if args.ladder is not None:
            from utils import ladder  # which builds on this module

            unknown = set(args.ladder) - set(ladder.RUNGS)
            if unknown:
                parser.error(f"--ladder: no rung is called {', '.join(unknown)}: choose from {', '.join(ladder.RUNGS)}")
            return ladder.climb(args.ladder or list(ladder.RUNGS))
        return train_seeds(args)
    except (datasets.ImdbUnavailable, datasets.ImdbDamaged) as problem:
        print(problem)
        return 1


def train_seeds(args):
    """One training for each seed; returns the exit code."""
    if "RANK" in os.environ:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    accuracies = []
    for seed in args.seed:
        out = args.out or CHECKPOINTS / f"{args.preset}-{seed}.pt"
        accuracies.append(train(args.preset, seed, args.epochs, out, args.record))
        if accuracies[-1] is None:
            return 130
    if distributed.is_initialized():
        distributed.destroy_process_group()
    if len(accuracies) > 1 and int(os.environ.get("RANK", 0)) == 0:
        print(f"mean of {len(accuracies)} seeds: {sum(accuracies) / len(accuracies):.4f}")
    return 0
