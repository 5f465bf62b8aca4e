"""`python3 -m utils compare`: all trainings that notebook 07's table and picture stand on."""

import argparse

from utils import checkpoints, datasets, presets
from utils.cli import train
from utils.files import read_table

ABLATION = datasets.DATA / "ablation.tsv"
SEEDS = range(5)

# variant: (the preset, what is changed in it); measured on both validations, never on the test reviews
VARIANTS = {
    "encoder, first 200 words only": ("encoder", {"task": {"max_first_tokens": 200}, "fit": {"max_tokens": 200}}),
    "encoder, split at spaces": ("encoder", {"task": {"tokenizer": "spaces"}}),
    "encoder, no dropout": ("encoder", {"model": {"dropout": 0.0}, "fit": {"word_dropout": 0.0}}),
    "encoder, no positions": ("encoder", {"model": {"positions": False}}),
    "convolution, no neighbours": ("convolution", {"model": {"reaches": (0,)}}),
    "convolution, one width": ("convolution", {"model": {"reaches": (1,)}}),
}


def changed(preset, changes):
    """The preset with some of its parts, or of their entries, changed."""
    return preset | {part: preset[part] | new if isinstance(new, dict) else new for part, new in changes.items()}


def missing(names, seeds):
    """What the tables lack of `names`, as (name, seed, whether reviews are held out), seed by seed."""
    everyone = len(datasets.load("imdb")[0])
    results, ablation = read_table(train.RESULTS), read_table(ABLATION)
    for seed in seeds:
        for name in names:
            if name in VARIANTS:
                if not any((row["variant"], row["seed"]) == (name, str(seed)) for row in ablation):
                    yield name, seed, True
                continue
            mine = [int(row["reviews"]) for row in results if (row["preset"], row["seed"]) == (name, str(seed))]
            if not any(reviews < everyone for reviews in mine):
                yield name, seed, True
            if everyone not in mine:
                yield name, seed, False


def main(argv):
    """Train what data/results.tsv and data/ablation.tsv lack of the presets and variants named, or of all.

    Each figure is kept as it comes: interrupted, it goes on where it stopped. Test reviews are looked at once for each
    preset and seed, and never for a variant.
    """
    names = ["lecture", "encoder", "convolution", *VARIANTS]
    parser = argparse.ArgumentParser(prog="python3 -m utils compare", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of: {', '.join(map(repr, names))}")
    parser.add_argument("--seed", type=int, nargs="+", default=list(SEEDS), help="(0 1 2 3 4)")
    args = parser.parse_args(argv)
    if unknown := set(args.names) - set(names):
        parser.error(f"nothing is called {', '.join(unknown)}: choose from {', '.join(map(repr, names))}")
    return train.attempt(measure, args.names or names, args.seed)


def measure(names, seeds):
    """What is missing of them; returns the exit code."""
    for name, seed, hold_out in list(missing(names, seeds)):
        print(f"{name}, seed {seed}, {'20 000' if hold_out else '25 000'} reviews", flush=True)
        if name not in VARIANTS:
            if train.measure(name, seed, hold_out=hold_out, to_record=True) is None:
                return 130
            continue
        base, changes = VARIANTS[name]
        keep = train.on_its_way(train.checkpoint(name, seed))
        *_, row = train.learn(changed(presets.PRESETS[base], changes), seed, keep=keep)
        if row is None:
            return 130
        train.record({"variant": name, "preset": base} | row, ABLATION, ("variant", "seed"))
        checkpoints.forget(keep)
    return 0
