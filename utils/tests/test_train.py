"""`train` and its table: what is recorded, what is said, and several processes."""

import copy
import dataclasses
import errno
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from torch import distributed

from utils import checkpoints, presets, tasks, training
from utils.cli import environment, train
from utils.files import read_table
from utils.processes import ProcessGroup
from utils.tests.conftest import command

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
    monkeypatch.setattr(tasks, "CACHE", tmp_path)
    monkeypatch.setattr(train, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(train, "RESULTS", tmp_path / "results.tsv")
    monkeypatch.setitem(presets.PRESETS, "toy", TOY | {"fit": TOY["fit"] | {"epochs": 2}})
    return tmp_path


def test_a_training_is_recorded_with_what_it_was(short, capsys):
    assert command("train", ["--preset", "toy", "--record"]) == 0
    [row] = read_table(short / "results.tsv")
    assert (row["preset"], row["reviews"], row["seed"], row["epochs"]) == ("toy", "1600", "0", "2")
    model, _ = checkpoints.load(short / "toy-0.pt")
    task = tasks.prepare(**TOY["task"])
    for part, rows in (("film", task.film_rows), ("random", task.random_rows)):
        accuracy = training.evaluate(model, task.words, task.reviews.labels, rows, max_tokens=128)[1]
        assert row[part] == f"{accuracy:.4f}"
    test = training.evaluate(model, task.test_words, task.test.labels, torch.arange(1000), max_tokens=128)[1]
    said, mirror = capsys.readouterr().out, task.test.pairs >= 0
    assert row["test"] == f"{test:.4f}" and f"test accuracy {test:.4f} on 1000 reviews" in said
    for what, rows in (("mirror pairs", mirror), ("ordinary reviews", ~mirror)):
        rows = rows.nonzero().flatten()
        found = training.evaluate(model, task.test_words, task.test.labels, rows, max_tokens=128)[1]
        assert f"{what} {found:.4f}" in said
    assert command("train", ["--preset", "toy", "--record", "--all"]) == 0
    everything = read_table(short / "results.tsv")[1]
    assert (everything["reviews"], everything["film"], everything["scrambled"]) == ("2000", "", "")


def test_the_seed_decides_how_it_begins_and_with_the_reviews_where_it_is_kept(short, monkeypatch):
    begun = []

    def fit(model, task, *, seed, keep, **settings):
        begun.append((seed, keep.name, model.embedding.weight[5].tolist()))
        return []

    monkeypatch.setattr(training, "fit", fit)
    for line in (["--seed", "0"], ["--seed", "1"], ["--seed", "1", "--all"]):
        assert command("train", ["--preset", "toy", *line]) == 130
    seeds, names, numbers = zip(*begun)
    assert seeds == (0, 1, 1) and numbers[0] != numbers[1]
    assert names == ("toy-0-in-progress.pt", "toy-1-in-progress.pt", "toy-all-1-in-progress.pt")


def test_a_bag_loses_nothing_when_scrambled(short):
    bag = TOY | {"model": TOY["model"] | {"positions": False}, "fit": TOY["fit"] | {"epochs": 2}}
    *_, row = train.train_preset(bag, 0)
    assert row["scrambled"] == row["film"]
    *_, row = train.train_preset(TOY | {"fit": TOY["fit"] | {"epochs": 12}}, 0)
    assert float(row["scrambled"]) < float(row["film"]) - 0.1  # and one that reads their order does


def test_interrupted_it_records_nothing_and_keeps_the_checkpoint(short, monkeypatch):
    (short / "toy-0.pt").write_text("of a training that ended")
    monkeypatch.setattr(training, "fit", lambda *args, **options: [{"epoch": 1}])
    assert command("train", ["--preset", "toy", "--record"]) == 130
    assert not (short / "results.tsv").exists() and (short / "toy-0-interrupted.pt").exists()
    assert (short / "toy-0.pt").read_text() == "of a training that ended"
    monkeypatch.setattr(training, "fit", lambda *args, **options: [])
    (short / "toy-0-interrupted.pt").unlink()
    assert command("train", ["--preset", "toy", "--record"]) == 130 and not list(short.glob("*interrupted*"))


def test_a_damaged_table_loses_no_training(short, capsys):
    (short / "results.tsv").write_text("preset\treviews\tseed\ntoy\t1600\n")
    assert command("train", ["--preset", "toy", "--record"]) == 1
    said = capsys.readouterr().out
    assert said.index("test accuracy") < said.index("checkpoint: ") < said.index("line 2 of ")
    assert (short / "toy-0.pt").exists() and (short / "results.tsv").read_text().endswith("toy\t1600\n")


def test_the_command_says_the_accuracy_before_it_saves(tmp_path):
    line = f"train --preset toy --epochs 1 --out {tmp_path / 'model.pt'}".split()
    how = {"cwd": environment.ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1"}, "text": True}
    done = subprocess.run([sys.executable, "-m", "utils", *line], capture_output=True, **how)
    *_, accuracy, saved = done.stdout.splitlines()
    assert done.returncode == 0 and re.search(r"test accuracy 0\.\d{4} on 1000 reviews, trained in ", accuracy)
    assert saved == f"checkpoint: {tmp_path / 'model.pt'}"
    checkpoints.load(tmp_path / "model.pt")


def test_where_nothing_can_be_saved_the_accuracy_is_said_and_the_training_kept(short, monkeypatch, capsys):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", full)
        assert command("train", ["--preset", "toy"]) == 0
    said = capsys.readouterr().out
    assert said.index("test accuracy") < said.index("could not be written: [Errno 28] No space left on device")
    assert not (short / "toy-0.pt").exists() and (short / "toy-0-in-progress.pt").exists()
    assert command("train", ["--preset", "toy", "--resume"]) == 0 and checkpoints.load(short / "toy-0.pt")
    again = capsys.readouterr().out
    assert "continuing after epoch 2" in again and "epoch 1/2" not in again
    assert re.search("test accuracy 0.*?on", again)[0] == re.search("test accuracy 0.*?on", said)[0]
    assert not list(short.glob("*-in-progress*"))


def test_resume_never_begins_anew_and_without_it_nothing_kept_is_lost(short, monkeypatch, capsys):
    line, plain, calls = ["--preset", "toy", "--seed", "0", "1", "2"], training.train_epoch, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 4:  # the second epoch of seed 1
            raise KeyboardInterrupt
        return plain(*args)

    assert command("train", [*line, "--resume"]) == 1
    assert f"there is no {short / 'toy-0-in-progress.pt'} to continue from" in capsys.readouterr().out
    monkeypatch.setattr(training, "train_epoch", interrupted)
    assert command("train", line) == 130
    assert command("train", line) == 1
    asked = f"{short / 'toy-1-in-progress.pt'} holds the progress of a training run: continue it with --resume"
    assert asked in capsys.readouterr().out and len(calls) == 4
    assert command("train", [*line, "--resume"]) == 0
    assert len(calls) == 4 + 1 + 2 and "continuing after epoch 1" in capsys.readouterr().out


def test_a_run_changes_no_preset(short):
    before = copy.deepcopy(presets.PRESETS)
    assert command("train", ["--preset", "toy", "--epochs", "1"]) == 0
    assert before == presets.PRESETS


def test_a_finished_checkpoint_is_no_interrupted_training(short, capsys):
    assert command("train", ["--preset", "toy", "--epochs", "1"]) == 0
    (short / "toy-0.pt").rename(short / "toy-0-in-progress.pt")
    assert command("train", ["--preset", "toy", "--resume"]) == 1
    assert "toy-0-in-progress.pt does not hold the progress of a training run" in capsys.readouterr().out


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_loss_that_is_not_finite_ends_it_and_overwrites_nothing(short, monkeypatch, capsys, epoch):
    class Broken(tasks.CLASSIFIERS["ReviewClassifier"]):
        steps = 0

        def forward(self, words):
            Broken.steps += self.training
            return super().forward(words) * (math.inf if Broken.steps == 50 * (epoch - 1) + 7 else 1)

    (short / "toy-0.pt").write_text("of a training that ended")
    monkeypatch.setitem(tasks.CLASSIFIERS, "ReviewClassifier", Broken)
    assert command("train", ["--preset", "toy", "--record"]) == 1
    way, said = short / "toy-0-in-progress.pt", capsys.readouterr().out
    rate = {1: "0.00028", 2: "0.0014"}[epoch]  # of one cycle over 100 steps, up to 0.002: at the 7th, at the 57th
    assert (
        f"a gradient is not finite: rate {rate}, noticed at step 7 of epoch {epoch}: use smaller learning rates; the"
        in said
    )
    assert (f"the last good checkpoint is {way}" if epoch == 2 else "there is no checkpoint yet") in said
    assert (short / "toy-0.pt").read_text() == "of a training that ended"
    assert not (short / "results.tsv").exists() and way.exists() == (epoch == 2)


def test_a_full_gpu_is_told_the_batch_size_to_try(short, monkeypatch, capsys):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(training, "train_epoch", full)
    assert command("train", ["--preset", "toy"]) == 1
    assert capsys.readouterr().out.endswith("the GPU's memory is full: try batch_size=16\n")
    assert not list(short.glob("*.pt.part"))


@pytest.mark.parametrize(
    "line", ["--epochs 0", "--seed 0 1 --out one.pt", "--preset bset", "--seed 99999999999999999999", "--seed -1"]
)
def test_a_wrong_command_says_so(line, capsys):
    with pytest.raises(SystemExit):
        command("train", line.split())
    assert "error: " in capsys.readouterr().err


def member(folder, rank, size):
    """What one of `size` processes does, and writes down."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet-{size}", rank=rank, world_size=size)
    seen, plain, task = [], training.train_epoch, tasks.prepare(**TOY["task"])

    def train_epoch(model, batches, *others):
        def noted():
            for words, labels in batches:
                seen.append(words.sum().item())
                yield words, labels

        return plain(model, noted(), *others)

    training.train_epoch = train_epoch
    model = tasks.build(TOY, task, 0).double()
    [row] = training.fit(model, task, **TOY["fit"] | {"epochs": 1, "batch_size": 31})
    kept = {"seen": seen.copy(), "weights": model.state_dict(), "figures": [row["train_loss"], row["train_accuracy"]]}

    few = {f"{part}_rows": getattr(task, f"{part}_rows")[::20] for part in ("train", "film", "random")}
    few = dataclasses.replace(task, **few)
    for name, preset in presets.PRESETS.items():
        preset |= {"model": preset["model"] | ({"dropout": 0.0} if "dropout" in preset["model"] else {})}
        model = tasks.build(preset, few, 0).double()
        settings = {"epochs": 1, "batch_size": 23, "word_dropout": 0.0}
        training.fit(model, few, **preset["fit"] | settings, keep=folder / f"{name}-{size}.pt")
        kept[name] = model.state_dict()
    few = dataclasses.replace(few, film_rows=few.film_rows[:0])  # so that the last epoch is the one left behind
    wet = TOY | {"model": TOY["model"] | {"dropout": 0.2}}  # each process drops numbers of its own
    for name, last, way in (("unstopped", 2, "none"), ("stopped", 1, "way"), ("resumed", 2, "way")):
        left = iter(range(last))
        training.train_epoch = lambda *args, left=left: plain(*args) if next(left, None) is not None else stop()
        model = tasks.build(wet, few, 0).double()
        training.fit(model, few, **TOY["fit"] | {"epochs": 2}, keep=folder / f"{way}-{size}.pt")
        kept[name] = model.state_dict()
    model = tasks.build(TOY, few, 0).double()
    try:
        training.fit(model, few, **TOY["fit"] | {"learning_rate": 1e30}, keep=folder / f"huge-{size}.pt")
    except FloatingPointError as problem:
        kept["said"] = str(problem)
    torch.save(kept, folder / f"end-{size}-{rank}.pt")


def stop():
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def ends(left_by):
    """For 1, 2 and 3 processes what each of them has written down."""
    folder = left_by("test_train")
    return folder, {size: [torch.load(folder / f"end-{size}-{rank}.pt") for rank in range(size)] for size in (1, 2, 3)}


def test_processes_share_each_batch(ends):
    [alone] = ends[1][1]
    assert len(alone["seen"]) == 52
    for size in (2, 3):
        shares = [end["seen"] for end in ends[1][size]]
        assert [sum(share) for share in zip(*shares, strict=True)] == alone["seen"]
        assert all(mine != other for mine, other in zip(*shares[:2]))


@pytest.mark.parametrize("what", ["weights", *presets.PRESETS])
@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_train_as_one_does(ends, size, what):
    """Batches of 31 and 23 fall in uneven shares; float64, no dropout; 52 steps, and 4 of each preset."""
    [alone] = ends[1][1]
    for end in ends[1][size]:
        for name, weight in alone[what].items():
            assert (weight - end[what][name]).abs().max() < 1e-10, name
        assert end["figures"] == pytest.approx(alone["figures"], abs=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_stopped_together_they_go_on_as_if_they_had_not(ends, size):
    """Sums of three depend on their order, and after a new start torch adds up the first step's in another order."""
    for end in ends[1][size]:
        for name, weight in end["unstopped"].items():
            apart = (weight - end["resumed"][name]).abs().max()
            assert apart == 0 if size < 3 else apart < 1e-10, name
            assert not torch.equal(weight[-1], end["stopped"][name][-1]), name


def test_processes_stop_together_where_the_loss_is_not_finite(ends):
    [said] = {end["said"] for end in ends[1][2]}
    assert "there is no checkpoint yet" in said


def test_another_number_of_processes_does_not_go_on(ends, task):
    with pytest.raises(checkpoints.ResumeError, match="processes 2, not 1"):
        training.fit(tasks.build(TOY, task, 0), task, **TOY["fit"], keep=ends[0] / "toy-2.pt")


def test_where_a_share_is_empty_its_review_weighs_nothing():
    group, batch = ProcessGroup(), (torch.arange(4), torch.arange(4))
    found = []
    for group.rank, group.size in ((0, 3), (1, 3), (2, 3)):
        for words, _ in group.shard([batch, (batch[0][:1], batch[1][:1])]):
            found.append((words.tolist(), group.share))
        assert group.reviews == len(found[-2][0]) + 1
    assert found == [([0, 3], 0.5), ([0], 1.0), ([1], 0.25), ([0], 0.0), ([2], 0.25), ([0], 0.0)]


def test_a_lost_process_is_named_though_torchrun_ends_this_one_meanwhile(monkeypatch, capsys):
    def work():
        try:
            raise RuntimeError("gloo: connection closed by peer")
        finally:
            raise KeyboardInterrupt

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(distributed, "rendezvous", lambda _: iter([(distributed.HashStore(), 0, 2)]))
    monkeypatch.setattr(distributed, "init_process_group", lambda *_, **__: None)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert train.run_guarded(work) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().out.count("A process was lost") == 1


def test_under_torchrun_one_is_killed_and_the_rest_resumed(tmp_path):
    """SIGKILL to one of two: exit 1, --resume is named once; --resume goes on, and only the first speaks.

    The other is stopped by the lost connection or, on a busy machine, by torchrun's SIGTERM before it notices the loss.
    The first says that a process was lost; the second acts as Ctrl-C, which also keeps model-interrupted.pt.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "utils"]
    line = [*torchrun, *f"train --preset toy --epochs 3 --out {tmp_path / 'model.pt'}".split()]
    how = {"cwd": environment.ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1"}, "text": True}
    said = []
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **how) as process:
        for words in process.stdout:
            said.append(words)
            if "epoch 1/3" in words:
                psutil.Process(process.pid).children()[1].kill()
    assert process.returncode == 1 and "".join(said).count("--resume") == 1
    assert not (tmp_path / "model.pt").exists()
    done = subprocess.run([*line, "--resume"], capture_output=True, **how)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and sum(line.startswith("test accuracy") for line in lines) == 1
    assert sum("continuing after epoch" in line for line in lines) == 1
    assert {path.name for path in tmp_path.iterdir()} - {"model-interrupted.pt"} == {"model.pt"}


if __name__ == "__main__":
    for size in (1, 2, 3):
        children = []
        for rank in range(size):
            children.append(os.fork())
            if children[-1] == 0:
                member(Path(sys.argv[1]), rank, size)
                os._exit(0)
        assert not any(os.waitpid(child, 0)[1] for child in children), size
