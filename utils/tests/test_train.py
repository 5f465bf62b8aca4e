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
    model, _ = checkpoints.load(short / "toy-0.pt")
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
    (short / "toy-0.pt").write_text("of a training that ended")
    monkeypatch.setattr(training, "fit", lambda *args, **options: [{"epoch": 1}])
    assert train.main(["--preset", "toy", "--record"]) == 130
    assert not (short / "results.tsv").exists() and (short / "toy-0-interrupted.pt").exists()
    assert (short / "toy-0.pt").read_text() == "of a training that ended"
    monkeypatch.setattr(training, "fit", lambda *args, **options: [])
    (short / "toy-0-interrupted.pt").unlink()
    assert train.main(["--preset", "toy", "--record"]) == 130 and not list(short.glob("*interrupted*"))


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
model = presets.build(toy, task, 0).double()
[row] = training.fit(model, task, **toy["fit"] | {"epochs": 1, "batch_size": 33}, seed=0)
kept = {"seen": seen, "weights": model.state_dict(), "figures": [row["train_loss"], row["train_accuracy"]]}
torch.save(kept, f"{sys.argv[1]}-{os.environ.get('RANK', 'alone')}.pt")
"""


@pytest.fixture(scope="module")
def witnesses(tmp_path_factory):
    """For 1, 2 and 3 processes what each of them was given, and the weights that it ended with."""
    folder, ends = tmp_path_factory.mktemp("witnesses"), {}
    (folder / "witness.py").write_text(WITNESS)
    for size in (1, 2, 3):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
        line = [*torchrun, str(folder / "witness.py"), str(folder / f"end-{size}")]
        variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(environment.ROOT)}
        subprocess.run(line, check=True, capture_output=True, env=variables)
        ends[size] = [torch.load(folder / f"end-{size}-{rank}.pt") for rank in range(size)]
    return ends


def test_processes_share_each_batch(witnesses):
    [alone] = witnesses[1]
    for size in (2, 3):
        shares = [end["seen"] for end in witnesses[size]]
        assert [sum(share) for share in zip(*shares, strict=True)] == alone["seen"]
        assert all(mine != other for mine, other in zip(*shares[:2]))


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_train_as_one_does(witnesses, size):
    """Batches of 33 fall in uneven shares; float64, no dropout, 49 steps."""
    [alone] = witnesses[1]
    for end in witnesses[size]:
        for name, weight in alone["weights"].items():
            assert (weight - end["weights"][name]).abs().max() < 1e-10, name
        assert end["figures"] == pytest.approx(alone["figures"], abs=1e-6)


def test_under_torchrun_only_the_first_process_speaks(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "utils"]
    lines = command(tmp_path, *torchrun)
    assert sum(line.startswith("test accuracy") for line in lines) == 1
