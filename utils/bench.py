"""`python3 -m utils bench`: ours beside torch's own layers, torchtext's own batches and the lecture's model."""

import argparse
import json
import platform
import time
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.nn import functional as F
from torchtext import data as torchtext_data

from utils import datasets, text, training, written_atomically
from utils.attention import MultiHeadAttention
from utils.transformer import EncoderLayer

SIZES = ((64, 64, 64, 4), (32, 256, 64, 4), (8, 512, 256, 8))  # batch, words, d_model, heads
ROUNDS = 15
COUNT = 5000  # reviews for the text pipeline
GOALS = (0.80, 0.83, 0.86, 0.88)


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def paired(ours, theirs, rounds):
    """Both in turn, after one round to warm up: median seconds of each, and the median of the rounds' ratios."""
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds + 1)][1:]
    one, other = (median(each) for each in zip(*pairs))
    return {"ours_s": one, "theirs_s": other, "ratio": median(a / b for a, b in pairs)}


def step(module, *inputs, **options):
    """Forward and backward; attention returns its output first, beside the weights."""
    output = module(*inputs, **options)
    (output[0] if isinstance(output, tuple) else output).sum().backward()


def layers():
    """Forward and backward of attention and of an encoder layer, ours and torch's, in training mode, on the CPU."""
    rows = []
    for B, T, d, heads in SIZES:
        x = torch.randn(B, T, d, requires_grad=True)
        ours, theirs = MultiHeadAttention(d, heads), nn.MultiheadAttention(d, heads, batch_first=True)
        contests = {"attention": (partial(step, ours, x), partial(step, theirs, x, x, x, need_weights=False))}
        ours = EncoderLayer(d, heads, 2 * d)
        theirs = nn.TransformerEncoderLayer(d, heads, 2 * d, dropout=0.0, batch_first=True)
        contests["encoder layer"] = partial(step, ours, x), partial(step, theirs, x)
        for name, calls in contests.items():
            rows.append({"what": f"{name} {B}×{T}×{d}"} | paired(*calls, ROUNDS))
            report(rows[-1])
    return rows


def pipeline():
    """`COUNT` reviews from str to one epoch of padded batches, by torchtext's `Field` and `BucketIterator` and by us.

    Both use the same tokenizer. The cached way starts from the token file that `text.cached_tokens` keeps.
    """
    reviews, _ = datasets.load("imdb")
    chosen = torch.arange(0, len(reviews), len(reviews) // COUNT)[:COUNT]
    texts, films, labels = [reviews.texts[row] for row in chosen], reviews.films[chosen], reviews.labels[chosen]
    rows = torch.arange(COUNT)
    cache = training.CACHE / "tokens-bench.pt"
    text.cached_tokens(texts, reviews.key, cache)

    def batches(tokens):
        packed = text.encode(tokens, text.build_vocabulary(tokens, rows, films, 5))
        return sum(1 for _ in training.batches(packed, labels, rows, batch_size=64, max_tokens=512))

    def theirs():
        field = torchtext_data.Field(tokenize=text.tokenize, batch_first=True)
        columns = [("text", field)]
        examples = [torchtext_data.Example.fromlist([one], columns) for one in texts]
        dataset = torchtext_data.Dataset(examples, columns)
        field.build_vocab(dataset, min_freq=5)
        by_length = torchtext_data.BucketIterator(dataset, 64, sort_key=lambda example: len(example.text), shuffle=True)
        return sum(1 for _ in by_length)

    results = []
    try:
        for name, ours in (
            ("raw", lambda: batches(text.tokenize_all(texts))),
            ("cached", lambda: batches(text.cached_tokens(texts, reviews.key, cache))),
        ):
            results.append({"what": f"{COUNT} reviews, {name}"} | paired(ours, theirs, 3))
            report(results[-1])
    finally:
        cache.unlink()
    return results


def race(name):
    """Train preset `name` until validation by film passes the last of `GOALS`, or to its end.

    Returns the seconds at which each goal was passed (None: never), those for validation and for loading left out, and
    the share of the time that is neither forward nor backward. It looks after 1, 2, 4, …, 64 steps, then every 64.
    """
    preset = training.PRESETS[name]
    task = training.prepare(**preset["task"])
    settings = dict(preset["fit"])
    epochs, size, longest = (settings.pop(key) for key in ("epochs", "batch_size", "max_tokens"))
    share, generator = settings.pop("word_dropout", 0.0), torch.Generator().manual_seed(0)
    began, learning, step, best = time.perf_counter(), 0.0, 0, 0.0
    passed = dict.fromkeys(GOALS)
    model = training.build(preset, task, 0)
    steps = epochs * -(-len(task.train) // size)
    optimizer, schedule = training.optimize(model, steps, **settings)
    while step < steps and passed[GOALS[-1]] is None:
        for words, labels in training.batches(
            task.words.thin(share, generator),
            task.reviews.labels,
            task.train,
            batch_size=size,
            max_tokens=longest,
            generator=generator,
        ):
            model.train()
            start = time.perf_counter()
            loss = F.cross_entropy(model(words), labels)
            optimizer.zero_grad()
            loss.backward()
            learning += time.perf_counter() - start
            optimizer.step()
            schedule.step()
            step += 1
            if step % 64 == 0 or (step < 64 and step & (step - 1) == 0) or step == steps:
                now = time.perf_counter()
                _, film = training.evaluate(model, task.words, task.reviews.labels, task.film, max_tokens=longest)
                best = max(best, film)
                passed = {goal: now - began if at is None and film > goal else at for goal, at in passed.items()}
                began += time.perf_counter() - now
                if passed[GOALS[-1]] is not None:
                    break
    total = time.perf_counter() - began
    row = {"what": name} | {f"{goal:.0%}": at for goal, at in passed.items()}
    row |= {"best": best, "seconds": total, "steps": step, "outside": 1 - learning / total}
    report(row)
    return row


def report(row):
    """Print one line of a table: seconds, ratios, shares, "never"."""
    print(f"{row['what']:26}", end="")
    for name, value in list(row.items())[1:]:
        print(f"  {name} {'never' if value is None else format(value, '.3g'):>7}", end="")
    print(flush=True)


def main(argv):
    """Time ours against torch's layers, torchtext's batches and the lecture's model, side by side, on the CPU."""
    parser = argparse.ArgumentParser(prog="python3 -m utils bench", description=main.__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures in FILE")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; in turn, medians, ratio = ours / theirs")
    result = {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine()}
    result["layers"] = layers()
    try:
        result["pipeline"] = pipeline()
        print("seconds until validation by film passes, best reached, share outside forward and backward")
        result["race"] = [race(name) for name in ("quick", "default", "lecture")]
    except (datasets.ImdbUnavailable, datasets.ImdbDamaged) as problem:
        print(problem)
    if args.json:
        with written_atomically(args.json) as file:
            json.dump(result, file, indent=1)
    return 0
