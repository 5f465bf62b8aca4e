"""From the lecture's model to ours, one change at a time, measured by `python3 -m utils train --ladder`."""

import csv

import torch

from utils import datasets, training

LADDER = datasets.DATA / "ladder.tsv"
COLUMNS = ["rung", "seed", "film", "random", "epochs", "seconds", "threads", "device"]
FEW, MANY = 1, 3  # seeds: many at either end, and for a step of less than half a point

SIDE = ("no positions", "removed", "distance")  # measured beside the ladder: no later rung stands on them


def changed(preset, **parts):
    """The preset with some entries of its parts changed; a new `kind` of model brings all of its arguments."""
    keep_model = parts.get("kind", preset["kind"]) == preset["kind"]
    new = preset | {"model": preset["model"] if keep_model else {}}
    for part, value in parts.items():
        new[part] = {**new[part], **value} if isinstance(value, dict) else value
    return new


def rungs():
    """{name: (what changed, the rung that it changed, settings, number of seeds)}, from the bottom up."""
    ladder = {"lecture": ("the published notebook's model", None, training.PRESETS["lecture"], MANY)}

    def add(name, meaning, below, *, seeds=MANY, **parts):
        ladder[name] = meaning, below, changed(ladder[below][2], **parts), seeds

    cycle = {"schedule": "one-cycle", "learning_rate": 2e-3, "batch_size": 64, "epochs": 6}
    sizes = {"d_model": 32, "num_heads": 2, "d_hidden": 128, "num_layers": 1}
    long = {"task": {"first": None}, "fit": {"max_tokens": 512}}
    add("depth", "one layer instead of three", "lecture", seeds=FEW, model={"num_layers": 1})
    add("cycle", "one-cycle rate up to 0.002, batches of 64, 6 epochs", "depth", seeds=FEW, fit=cycle)
    add("punctuation", "punctuation is split off", "cycle", task={"tokenizer": "basic_english"})
    add("mask", "padding is masked, and pooling skips it", "punctuation", model={"masked": True})
    add("mean", "the mean is pooled beside the maximum", "mask", model={"mean": True})
    add(
        "small",
        "word vectors start small and are not normalised",
        "mean",
        seeds=FEW,
        kind="ReviewClassifier",
        model=sizes,
    )
    add(
        "films",
        "words of 20 films, not the 50 000 most frequent",
        "small",
        seeds=FEW,
        task={"min_films": 20, "max_words": None},
    )
    add("tail", "512 tokens of head and tail, not the first 200", "films", seeds=FEW, **long)
    add("width", "d = 64 and 4 heads", "tail", model={"d_model": 64, "num_heads": 4})
    add("dropout", "dropout of 0.3", "width", model={"dropout": 0.3})
    add("words", "half of the words left out", "dropout", fit={"word_dropout": 0.5})
    add("encoder", "word vectors learn 8 times as fast", "words", model={"word_scale": 8.0})
    add("no positions", "without positions", "encoder", model={"positions": False})

    own, best = training.PRESETS["default"], training.PRESETS["best"]
    model, fit = own["model"] | {"M": 0}, own["fit"] | {"word_dropout": 0.0}
    phrases = {"kind": own["kind"], "model": model, "task": own["task"], "fit": fit}
    add("neighbours", "attention to the neighbours, words of 5 films", "encoder", **phrases)
    add("removed", "words left out, not blanked", "neighbours", model={"word_dropout": 0.0}, fit={"word_dropout": 0.2})
    add("start", "values start at the log-odds of words", "neighbours", start=own["start"])
    add("default", "64 more units, pooled by the maximum", "start", model={"M": 64})
    add("distance", "scores by distance alone", "default", model={"content": False})
    add("hard", "heads start almost hard", "default", model={"ahead": best["model"]["ahead"]})
    add("best", "512 units pooled by the maximum", "hard", model={"M": 512})
    return ladder


RUNGS = rungs()


def read(path=LADDER):
    """The rows measured so far, as dicts of str."""
    if not path.exists():
        return []
    with path.open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def climb(names, path=LADDER):
    """Measure what `path` lacks of the rungs `names`, and append each result as it comes. Returns the exit code.

    It never looks at the test reviews. What was measured stays after Ctrl-C.
    """
    for name in names:
        meaning, below, preset, seeds = RUNGS[name]
        for seed in range(seeds):
            if any((row["rung"], row["seed"]) == (name, str(seed)) for row in read(path)):
                continue
            print(f"{name}, seed {seed}: {meaning}" + (f" (on {below})" if below else ""), flush=True)
            task, device = training.prepare(**preset["task"]), training.best_device()
            history = training.fit(training.build(preset, task, seed).to(device), task, **preset["fit"], seed=seed)
            if len(history) < preset["fit"]["epochs"]:
                return 130
            row = {"rung": name, "seed": seed} | training.validations(history) | {"epochs": len(history)}
            row["seconds"] = round(sum(epoch["seconds"] for epoch in history))
            row |= {"threads": torch.get_num_threads(), "device": device.type}
            append(row, path)
    return 0


def append(row, path):
    new = not path.exists()
    with path.open("a", encoding="utf8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
        if new:
            table.writeheader()
        table.writerow(row)
