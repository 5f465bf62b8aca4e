"""`train` and its table: what is recorded, what is said, and several processes."""

import os
import subprocess
import sys

import pytest
import torch

from utils import checkpoints, presets, training
from utils.cli import environment, train
from utils.files import read_table

TOY = presets.PRESETS["toy"]


def test_results_replace_those_of_the_same_seed_and_reviews(tmp_path):
    path = tmp_path / "results.tsv"
    for reviews, seed, test in ((20, 1, "0.8"), (20, 10, "0.7"), (25, 1, "0.6"), (20, 1, "0.9"), (20, 2, "0.5")):
        train.record({"preset": "toy", "reviews": reviews, "seed": seed, "test": test}, path, train.KEY)
    rows = [(row["reviews"], row["seed"], row["test"]) for row in read_table(path)]
    assert rows == [("20", "1", "0.9"), ("20", "2", "0.5"), ("20", "10", "0.7"), ("25", "1", "0.6")]


@pytest.fixture
def short(tmp_path, monkeypatch):
    """The toy preset for two epochs, with a table and checkpoints of its own."""
    monkeypatch.setattr(presets, "CACHE", tmp_path)
    monkeypatch.setattr(train, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(train, "RESULTS", tmp_path / "results.tsv")
    monkeypatch.setitem(presets.PRESETS, "toy", TOY | {"fit": TOY["fit"] | {"epochs": 2}})
    return tmp_path


def test_a_training_is_recorded_with_what_it_was(short, capsys):
    assert train.main(["--preset", "toy", "--record"]) == 0
    [row] = read_table(short / "results.tsv")
    assert (row["preset"], row["reviews"], row["seed"], row["epochs"]) == ("toy", "1600", "0", "2")
    model, _ = checkpoints.load(short / "toy-1600-0.pt")
    task = presets.prepare(**TOY["task"])
    for part, rows in (("film", task.film_rows), ("random", task.random_rows)):
        accuracy = training.evaluate(model, task.words, task.reviews.labels, rows, max_tokens=128)[1]
        assert row[part] == f"{accuracy:.4f}"
    test = training.evaluate(model, task.test_words, task.test.labels, torch.arange(1000), max_tokens=128)[1]
    assert row["test"] == f"{test:.4f}" and f"test accuracy {test:.4f} on 1000 reviews" in capsys.readouterr().out
    assert train.main(["--preset", "toy", "--record", "--all"]) == 0
    everything = read_table(short / "results.tsv")[1]
    assert (everything["reviews"], everything["film"], everything["scrambled"]) == ("2000", "", "")


def test_a_bag_loses_nothing_when_scrambled(short):
    bag = TOY | {"model": TOY["model"] | {"positions": False}, "fit": TOY["fit"] | {"epochs": 2}}
    *_, row = train.learn(bag, 0)
    assert row["scrambled"] == row["film"]
    *_, row = train.learn(TOY | {"fit": TOY["fit"] | {"epochs": 12}}, 0)
    assert float(row["scrambled"]) < float(row["film"]) - 0.1  # and one that reads their order does


def test_interrupted_it_records_nothing_and_keeps_the_checkpoint(short, monkeypatch):
    monkeypatch.setattr(training, "fit", lambda *args, **options: [{"epoch": 1}])
    assert train.main(["--preset", "toy", "--record"]) == 130
    assert not (short / "results.tsv").exists() and (short / "toy-1600-0.pt").exists()


def command(tmp_path, *arguments):
    out = tmp_path / "model.pt"
    line = [*arguments, "train", "--preset", "toy", "--epochs", "1", "--out", str(out)]
    done = subprocess.run(
        line, cwd=environment.ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    torch.load(out, weights_only=True)
    return done.stdout.strip().splitlines()


def test_the_command_and_its_last_line(tmp_path):
    last = command(tmp_path, sys.executable, "-m", "utils")[-1]
    assert last.startswith("test accuracy 0.") and " on 1000 reviews, trained in " in last


@pytest.mark.parametrize("line", ["--epochs 0", "--seed 0 1 --out one.pt", "--preset bset"])
def test_a_wrong_command_says_so(line, capsys):
    with pytest.raises(SystemExit):
        train.main(line.split())
    assert "error: " in capsys.readouterr().err


# What each process of a training was given, and the weights that it ended with.
WITNESS = """
import os, sys
import torch
from torch import distributed
from utils import presets, training
seen, plain = [], training.train_epoch

def train_epoch(model, batches, *others):
    def noted():
        for words, labels in batches:
            seen.append(words.sum().item())
            yield words, labels
    return plain(model, noted(), *others)

training.train_epoch = train_epoch
if "RANK" in os.environ:
    distributed.init_process_group("gloo")
toy = presets.PRESETS["toy"]
task = presets.prepare(**toy["task"])
model = presets.build(toy, task, 0)
training.fit(model, task, **toy["fit"] | {"epochs": 1}, seed=0)
torch.save({"seen": seen, "weights": model.state_dict()}, f"{sys.argv[1]}-{os.environ.get('RANK', 'alone')}.pt")
"""


def test_two_processes_share_the_batches_and_end_alike(tmp_path):
    (tmp_path / "witness.py").write_text(WITNESS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for command in ([sys.executable], torchrun):
        line = [*command, str(tmp_path / "witness.py"), str(tmp_path / "end")]
        variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(environment.ROOT)}
        subprocess.run(line, check=True, capture_output=True, env=variables)
    alone, first, second = (torch.load(tmp_path / f"end-{who}.pt") for who in ("alone", 0, 1))
    assert first["seen"] == alone["seen"][::2] and second["seen"] == alone["seen"][1::2]
    assert all(map(torch.equal, first["weights"].values(), second["weights"].values()))
    assert not all(map(torch.equal, first["weights"].values(), alone["weights"].values()))


def test_under_torchrun_only_the_first_process_speaks(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "utils"]
    lines = command(tmp_path, *torchrun)
    assert sum(line.startswith("test accuracy") for line in lines) == 1
