"""`python3 -m utils compare`: the training runs behind notebook 07's tables."""

from utils import checkpoints, datasets
from utils.cli import train
from utils.files import read_table
from utils.presets import PRESETS, VARIANTS

ABLATION = datasets.DATA / "ablation.tsv"


def main(args):
    """Train the presets and variants in `args.names`, or all of them, wherever the tables lack a result.

    Each row is written when it is ready, so that an interrupted run continues where it stopped. Each trained preset is
    measured once on the test reviews; variants are never measured on them. Returns the exit code.
    """
    return train.run_guarded(train_missing, args.names or args.known, args.seed)


def train_missing(names, seeds):
    """Do the missing training runs; returns the exit code."""
    for name, seed, hold_out in list(missing(names, seeds)):
        print(f"{name}, seed {seed}, {'20 000' if hold_out else '25 000'} reviews", flush=True)
        if name not in VARIANTS:
            if train.train_and_test(name, seed, hold_out=hold_out, to_record=True) is None:
                return 130
            continue
        base, changes = VARIANTS[name]
        keep = train.progress_path(train.checkpoint_path(name, seed))
        *_, row = train.train_preset(changed(PRESETS[base], changes), seed, keep=keep)
        if row is None:
            return 130
        train.record({"variant": name, "preset": base} | row, ABLATION, ("variant", "seed"))
        checkpoints.delete_progress(keep)
    return 0


def changed(preset, changes):
    """The preset with some entries of its parts changed."""
    return preset | {part: preset[part] | new for part, new in changes.items()}


def missing(names, seeds):
    """The training runs that the tables lack, seed by seed: (name, seed, whether reviews are held out)."""
    everyone = len(datasets.load("imdb")[0])
    results, ablation = read_table(train.RESULTS), read_table(ABLATION)
    for seed in seeds:
        for name in names:
            if name in VARIANTS:
                if not any((row["variant"], row["seed"]) == (name, str(seed)) for row in ablation):
                    yield name, seed, True
                continue
            done = [int(row["reviews"]) for row in results if (row["preset"], row["seed"]) == (name, str(seed))]
            if not any(reviews < everyone for reviews in done):
                yield name, seed, True
            if everyone not in done:
                yield name, seed, False
