"""A checkpoint is the model and its words; a training that was killed goes on as if it never had been."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from utils import checkpoints, presets, text, training
from utils.classifiers import ReviewClassifier
from utils.cli import environment

TOY = presets.PRESETS["toy"]
FEW = TOY["fit"] | {"epochs": 3, "batch_size": 200, "word_dropout": 0.1}  # 8 steps an epoch
SMALL = {"d_model": 16, "num_heads": 2, "d_hidden": 16, "num_layers": 1, "dropout": 0.2}


def test_checkpoint_comes_back(task, tmp_path):
    model = ReviewClassifier(len(task.vocabulary), **TOY["model"]).eval()
    checkpoints.save(tmp_path / "new" / "model.pt", model, TOY["model"], task.vocabulary, [{"epoch": 1}])
    loaded, words = checkpoints.load(tmp_path / "new" / "model.pt")
    numbers = text.pad(task.words, torch.arange(5))
    assert torch.equal(model(numbers), loaded(numbers)) and words == task.vocabulary.itos


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
    model = ReviewClassifier(len(task.vocabulary), **SMALL)
    history = training.fit(model, task, **FEW | changes, keep=keep)
    return model.state_dict(), [{name: row[name] for name in row if name != "seconds"} for row in history]


@pytest.fixture(scope="module")
def never_stopped(task):
    return train(task)


@pytest.mark.parametrize("step", [1, 4, 8, 9, 12, 16, 17, 20, 23, 24])
def test_killed_at_a_step_it_ends_with_the_same_bits(task, never_stopped, tmp_path, monkeypatch, step):
    plain, steps = torch.optim.AdamW.step, []

    def until(self, *args, **options):
        steps.append(1)
        if len(steps) == step:
            raise Killed
        return plain(self, *args, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", until)
    with pytest.raises(Killed):
        train(task, tmp_path / "way.pt")
    monkeypatch.undo()
    goes_on_alike(task, never_stopped, tmp_path)


@pytest.mark.parametrize(("write", "share"), [(1, 0.0), (1, 0.5), (2, 0.1), (2, 0.99), (3, 0.5)])
def test_killed_while_it_writes_it_ends_with_the_same_bits(task, never_stopped, tmp_path, monkeypatch, write, share):
    plain, writes = torch.save, []

    def cut(kept, file):
        writes.append(1)
        plain(kept, file)
        if len(writes) == write:
            file.truncate(int(share * file.tell()))
            raise Killed

    monkeypatch.setattr(torch, "save", cut)
    with pytest.raises(Killed):
        train(task, tmp_path / "way.pt")
    monkeypatch.undo()
    goes_on_alike(task, never_stopped, tmp_path)


def goes_on_alike(task, never_stopped, folder):
    weights, history = train(task, folder / "way.pt")
    assert all(map(torch.equal, weights.values(), never_stopped[0].values())) and history == never_stopped[1]
    assert list(folder.iterdir()) == []  # done, nothing is left


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
        with pytest.raises(checkpoints.CannotGoOn, match=r"way.pt is damaged.*go on from .*way.pt.previous"):
            train(task, path)
    os.replace(tmp_path / "way.pt.previous", path)
    goes_on_alike(task, never_stopped, tmp_path)


def test_another_training_does_not_go_on_from_it(task, tmp_path, monkeypatch):
    path = tmp_path / "way.pt"
    stop_after_two(task, path, monkeypatch)
    for changes, name in (({"seed": 1}, "seed"), ({"epochs": 4}, "epochs"), ({"learning_rate": 1.0}, "learning_rate")):
        with pytest.raises(checkpoints.CannotGoOn, match=rf"of another training \({name}\)"):
            train(task, path, **changes)
    monkeypatch.setattr(torch, "__version__", "1.0")
    with pytest.raises(checkpoints.CannotGoOn, match=r"of another training \(torch\)"):
        train(task, path)


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


def test_the_command_killed_and_resumed(tmp_path):
    """SIGKILL in its third epoch, then --resume; beside one that was left alone."""
    line = [sys.executable, "-m", "utils", "train", "--preset", "toy", "--epochs", "5", "--out"]
    settings = {"cwd": environment.ROOT, "env": os.environ | {"OMP_NUM_THREADS": "1"}, "text": True}
    subprocess.run([*line, str(tmp_path / "alone.pt")], check=True, capture_output=True, **settings)
    with subprocess.Popen([*line, str(tmp_path / "killed.pt")], stdout=subprocess.PIPE, **settings) as process:
        for said in process.stdout:
            if "epoch 2/5" in said:
                time.sleep(0.1)
                process.send_signal(signal.SIGKILL)
                break
    assert not (tmp_path / "killed.pt").exists()
    done = subprocess.run(
        [*line, str(tmp_path / "killed.pt"), "--resume"], check=True, capture_output=True, **settings
    ).stdout
    assert "goes on after epoch 2" in done and "epoch 1/5" not in done
    alone, killed = (torch.load(tmp_path / name)["weights"] for name in ("alone.pt", "killed.pt"))
    assert all(map(torch.equal, alone.values(), killed.values()))
