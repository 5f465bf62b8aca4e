"""A checkpoint is the model and its words; a training that was killed goes on as if it never had been."""

import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from utils import checkpoints, files, presets, tasks, text, training
from utils.classifiers import ReviewClassifier
from utils.tests.conftest import command

TOY = presets.PRESETS["toy"]
FEW = TOY["fit"] | {"epochs": 3, "batch_size": 200, "word_dropout": 0.1}  # 8 steps an epoch
SMALL = {"d_model": 16, "num_heads": 2, "d_hidden": 16, "num_layers": 1, "dropout": 0.2}


def test_what_is_forgotten_is_gone_with_all_that_stands_beside_it(tmp_path, monkeypatch):
    names = ["a.pt.1.part", "a.pt.2.part", "a.pt", "a.pt.previous", "b.pt.1.part", "a.pt2", "a.pt.bak"]
    for name in names:
        (tmp_path / name).write_text("")
    checkpoints.delete_progress(tmp_path / "a.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt.bak", "a.pt2", "b.pt.1.part"]
    monkeypatch.setattr(Path, "glob", lambda *_: [tmp_path / "a.pt.1.part"])  # listed, and gone
    checkpoints.delete_progress(tmp_path / "a.pt")


def test_checkpoint_comes_back(task, tmp_path):
    model = ReviewClassifier(len(task.vocabulary), **TOY["model"]).eval()
    checkpoints.save(tmp_path / "new" / "model.pt", model, TOY["model"], task.vocabulary, [{"epoch": 1}])
    loaded, words = checkpoints.load(tmp_path / "new" / "model.pt")
    numbers = text.pad(task.words, torch.arange(5))
    assert torch.equal(model(numbers), loaded(numbers)) and words == task.vocabulary.itos
    assert not loaded.training
    assert files.read_tensors(tmp_path / "new" / "model.pt")["history"] == [{"epoch": 1}]


def test_a_compiled_model_comes_back_and_another_file_is_named(task, tmp_path):
    model = ReviewClassifier(len(task.vocabulary), **SMALL)
    checkpoints.save(tmp_path / "model.pt", torch.compile(model), SMALL, task.vocabulary, [])
    loaded, _ = checkpoints.load(tmp_path / "model.pt")
    assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))
    for other in ({"words": ["a"], "key": "of a cache"}, [1, 2], {"model_class": "Unknown"}):
        torch.save(other, tmp_path / "other.pt")
        with pytest.raises(files.CorruptFileError, match=r"other.pt does not hold a trained classifier"):
            checkpoints.load(tmp_path / "other.pt")


def test_a_flipped_byte_in_a_checkpoint_is_found_or_does_no_harm(task, tmp_path):
    path, model = tmp_path / "model.pt", ReviewClassifier(len(task.vocabulary), **SMALL)
    checkpoints.save(path, model, SMALL, task.vocabulary, [])
    whole, refused = path.read_bytes(), 0
    for place in range(100, len(whole), len(whole) // 50):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            loaded, words = checkpoints.load(path)
        except ValueError as problem:
            refused += "model.pt is damaged" in str(problem)
        else:  # it was in the space between two parts
            assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))
            assert words == task.vocabulary.itos
    assert refused > 30
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model.pt is damaged"):
        checkpoints.load(path)


class Killed(BaseException):
    """What no `except` of ours catches."""


def train(task, keep=None, **changes):
    torch.manual_seed(0)
    model = ReviewClassifier(len(task.vocabulary), **SMALL | changes.pop("model", {}))
    history = training.fit(model, task, **FEW | changes, keep=keep)
    return model.state_dict(), [{name: row[name] for name in row if name != "seconds"} for row in history]


@pytest.fixture(scope="module")
def never_stopped(task):
    return train(task)


def at_step(n):
    plain, steps = torch.optim.AdamW.step, itertools.count(1)

    def step(*args, **options):
        if next(steps) == n:
            die()
        return plain(*args, **options)

    torch.optim.AdamW.step = step


def in_write(n, share):
    """When the file has only `share` of its bytes."""
    plain, writes = torch.save, itertools.count(1)

    def save(kept, file):
        plain(kept, file)
        if next(writes) == n:
            file.truncate(int(share * file.tell()))
            die()

    torch.save = save


def before_move(n):
    """A whole file is renamed, from the second on after a link to the one before was made."""
    moves = itertools.count(1)

    def dying(plain):
        def move(*args):
            if next(moves) == n:
                die()
            return plain(*args)

        return move

    os.replace, Path.hardlink_to = dying(os.replace), dying(Path.hardlink_to)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


POINTS = [  # how a training of 3 epochs is killed, where, and how many epochs must have been kept
    *((at_step, (step,), (step - 1) // 8) for step in (1, 8, 9, 12, 16, 17, 24)),
    *((in_write, (write, share), write - 1) for write, share in ((1, 0.0), (1, 0.5), (2, 0.1), (2, 0.99), (3, 0.5))),
    *((before_move, (move,), move // 2) for move in (1, 2, 3, 4, 5)),
]


def main(folder):
    """Kill a training at each of the points, and the command somewhere in its third epoch; go on; write what came."""
    task, rows = tasks.prepare(**TOY["task"]), []
    weights, history = train(task)
    for how, where, _ in POINTS:
        path = folder / f"{how.__name__}-{len(rows)}.pt"
        status = in_another_process(lambda how=how, where=where, path=path: (how(*where), train(task, path)))
        kept = len(torch.load(path)["history"]) if path.exists() else 0
        resumed, rest = train(task, path)
        rows.append([status, kept, bytes_different(weights, resumed), rest == history])
    (folder / "rows.json").write_text(json.dumps(rows))

    line = "--preset toy --epochs 5 --out".split()
    in_another_process(lambda: command("train", [*line, str(folder / "alone.pt")]))
    in_another_process(lambda: command("train", [*line, str(folder / "killed.pt")]), "epoch 2/5", folder / "log")
    assert not (folder / "killed.pt").exists()
    in_another_process(lambda: command("train", [*line, str(folder / "killed.pt"), "--resume"]), "", folder / "resumed")


def in_another_process(work, last_words=None, log=os.devnull):
    """Do `work` in a copy of this process, what it prints going to `log`; returns how it ended.

    With `last_words` it is killed a moment after it has printed them.
    """
    child = os.fork()
    if child == 0:
        with open(log, "w", buffering=1) as sys.stdout:
            work()
            os._exit(0)
    while last_words and last_words not in (Path(log).read_text() if Path(log).exists() else ""):
        time.sleep(0.01)
    if last_words:
        time.sleep(0.1)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def bytes_different(one, other):
    return sum((a.view(torch.uint8) != b.view(torch.uint8)).sum().item() for a, b in zip(one.values(), other.values()))


@pytest.fixture(scope="module")
def killed(left_by):
    """The folder where `main` has left what it saw."""
    return left_by("test_checkpoints")


def test_killed_anywhere_it_ends_with_the_same_bits(killed):
    rows = json.loads((killed / "rows.json").read_text())
    for (how, where, kept), row in zip(POINTS, rows, strict=True):
        assert row == [signal.SIGKILL, kept, 0, True], (how.__name__, where)


def test_the_command_killed_and_resumed(killed):
    said = (killed / "resumed").read_text()
    assert "continuing after epoch 2" in said and "epoch 1/5" not in said
    alone, resumed = (torch.load(killed / name)["weights"] for name in ("alone.pt", "killed.pt"))
    assert bytes_different(alone, resumed) == 0
    assert not list(killed.glob("killed-*"))


def goes_on_alike(task, never_stopped, folder):
    weights, history = train(task, folder / "way.pt")
    assert all(map(torch.equal, weights.values(), never_stopped[0].values())) and history == never_stopped[1]
    assert train(task, folder / "way.pt")[1] == history  # until it is forgotten, the last epoch's
    checkpoints.delete_progress(folder / "way.pt")
    assert list(folder.iterdir()) == []


def stop_after_two(task, path, monkeypatch):
    plain = checkpoints.Progress.save

    def save(self, history, best):
        plain(self, history, best)
        if len(history) == 2:
            raise Killed

    monkeypatch.setattr(checkpoints.Progress, "save", save)
    with pytest.raises(Killed):
        train(task, path)
    monkeypatch.undo()


def test_a_damaged_one_is_refused_and_the_one_before_named(task, never_stopped, tmp_path, monkeypatch):
    path = tmp_path / "way.pt"
    stop_after_two(task, path, monkeypatch)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:], b""):
        path.write_bytes(damaged)
        with pytest.raises(checkpoints.ResumeError, match=r"way.pt is damaged.*rename .*way.pt.previous to way.pt"):
            train(task, path)
    os.replace(tmp_path / "way.pt.previous", path)
    goes_on_alike(task, never_stopped, tmp_path)


def test_another_training_does_not_go_on_from_it(task, tmp_path, monkeypatch):
    path = tmp_path / "way.pt"
    stop_after_two(task, path, monkeypatch)
    for changes, name in (({"seed": 1}, "seed"), ({"epochs": 4}, "epochs"), ({"learning_rate": 1.0}, "learning_rate")):
        with pytest.raises(checkpoints.ResumeError, match=rf"to a different training run \({name} .*, not .*\)"):
            train(task, path, **changes)
    with pytest.raises(checkpoints.ResumeError, match=r"to a different training run \(model\)"):
        train(task, path, model={"num_heads": 4})  # of the same shapes
    monkeypatch.setattr(torch, "__version__", "1.0")
    with pytest.raises(checkpoints.ResumeError, match=r"to a different training run \(torch 2.*, not 1.0\)"):
        train(task, path)


def test_a_full_disk_loses_no_epoch_and_ends_no_training(task, never_stopped, tmp_path, monkeypatch, capsys):
    resource = pytest.importorskip("resource")  # not on Windows
    path, plain = tmp_path / "way.pt", torch.save

    def full(kept, file):  # from the second epoch on
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            if len(kept["history"]) > 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
            plain(kept, file)
            file.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(torch, "save", full)
    weights, history = train(task, path)
    assert all(map(torch.equal, weights.values(), never_stopped[0].values())) and history == never_stopped[1]
    said = capsys.readouterr().out
    assert "epoch 1 was not saved" not in said
    assert f"epoch 2 was not saved, because {path} could not be written" in said and "epoch 3 was not saved" in said
    monkeypatch.undo()
    goes_on_alike(task, never_stopped, tmp_path)
    assert "continuing after epoch 1" in capsys.readouterr().out


def test_ctrl_c_can_go_on(task, never_stopped, tmp_path, monkeypatch):
    plain, calls = training.validate, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(training, "validate", interrupted)
    assert len(train(task, tmp_path / "way.pt")[1]) == 1
    monkeypatch.undo()
    goes_on_alike(task, never_stopped, tmp_path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
