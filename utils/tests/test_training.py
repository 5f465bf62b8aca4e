"""Training: the toy reviews are learned, twice alike; what is kept; what Ctrl-C leaves."""

import pytest
import torch

from utils import checkpoints, presets, text, training
from utils.classifiers import ReviewClassifier

TOY = presets.PRESETS["toy"]


def learn(task, seed=0, **changes):
    torch.manual_seed(seed)
    model = ReviewClassifier(len(task.vocabulary), **TOY["model"] | changes.pop("model", {}))
    return model, training.fit(model, task, **TOY["fit"] | changes, seed=seed)


def halves(model, task):
    """Accuracy on the mirror pairs and on the ordinary reviews of the toy test set."""
    scores = training.predict(model, task.test_words, torch.arange(len(task.test)), max_tokens=128)
    right, mirror = (scores.argmax(1) == task.test.labels).double(), task.test.pairs >= 0
    return right[mirror].mean().item(), right[~mirror].mean().item()


def test_the_encoder_learns_the_mirror_pairs_and_twice_the_same(task):
    model, history = learn(task)
    mirror, ordinary = halves(model, task)
    assert mirror >= 0.95 and ordinary >= 0.95
    assert sum(row["seconds"] for row in history) < 30 * 4  # 30 s on two cores; four times that on a busy machine
    best = max(row["film_accuracy"] for row in history)
    _, accuracy = training.evaluate(model, task.words, task.reviews.labels, task.film_rows, max_tokens=128)
    assert accuracy == best  # the model left behind is the best epoch's
    again, _ = learn(task)
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))


def test_without_positions_exactly_half_of_the_mirror_pairs(task):
    model, _ = learn(task, epochs=2, model={"positions": False})
    mirror, ordinary = halves(model, task)
    assert mirror == 0.5 and ordinary > 0.7


def test_a_bag_of_words_gets_the_ordinary_half_and_exactly_half_of_the_mirror_pairs(task):
    def counts(packed):
        return torch.stack([one.long().bincount(minlength=len(task.vocabulary)) for one in packed]).double()

    x, y = counts(task.words), task.reviews.labels.double()
    weights = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(x @ weights, y) + 1e-3 * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    right = ((counts(task.test_words) @ weights > 0) == (task.test.labels == 1)).double()
    mirror = task.test.pairs >= 0
    assert right[mirror].mean() == 0.5 and right[~mirror].mean() >= 0.85


def test_the_best_epoch_is_the_one_kept(task, monkeypatch):
    states, accuracies = [], iter([0.6, 0.5, 0.9, 0.5, 0.9, 0.5, 0.7, 0.5])  # film and random, of four epochs

    def measured(model, *args, **options):
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        return 0.0, next(accuracies)

    monkeypatch.setattr(training, "evaluate", measured)
    model, _ = learn(task, epochs=4)
    assert all(map(torch.equal, model.state_dict().values(), states[2].values()))  # the second, first of the equals
    assert not all(map(torch.equal, states[2].values(), states[4].values()))


def test_ctrl_c_keeps_what_was_learned(task, monkeypatch, capsys):
    evaluate, calls = training.evaluate, []

    def interrupted(*args, **options):
        calls.append(args)
        if len(calls) > 3:  # two epochs' worth of validations less one
            raise KeyboardInterrupt
        return evaluate(*args, **options)

    monkeypatch.setattr(training, "evaluate", interrupted)
    torch.manual_seed(0)
    model = ReviewClassifier(len(task.vocabulary), **TOY["model"])
    before = model.embedding.weight.clone()
    history = training.fit(model, task, **TOY["fit"], seed=0)
    assert len(history) == 1 and "stopped in epoch 2" in capsys.readouterr().out
    loss, accuracy = evaluate(model, task.words, task.reviews.labels, task.film_rows, max_tokens=128)
    assert accuracy == history[0]["film_accuracy"] and not torch.equal(before, model.embedding.weight)


def test_predictions_come_in_the_order_asked_for(task):
    model = ReviewClassifier(len(task.vocabulary), **TOY["model"])
    rows = torch.tensor([5, 900, 3, 77])
    scores = training.predict(model, task.words, rows, max_tokens=128)
    for row, one in zip(rows, scores):
        assert torch.allclose(model(task.words[row][None].long()), one, atol=1e-5)


def test_the_convolution_learns_with_nothing_held_out_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "CACHE", tmp_path)
    preset = presets.PRESETS["convolution"] | {"task": {"name": "toy", "min_films": 1, "hold_out": False}}
    task = presets.prepare(**preset["task"])
    assert len(task.train_rows) == len(task.reviews) and len(task.film_rows) == len(task.random_rows) == 0
    preset |= {"model": preset["model"] | {"num_units": 8}}
    model = presets.build(preset, task, 0)
    before = torch.cat([table.weight for table in model.tables], dim=1).detach()
    history = training.fit(model, task, **preset["fit"] | {"epochs": 15, "batch_size": 32})
    assert training.best_epoch(history) is history[-1] and history[-1]["train_accuracy"] > 0.75
    changed = (torch.cat([table.weight for table in model.tables], dim=1) != before).any(1)
    used = torch.zeros(len(changed), dtype=torch.bool)
    used[task.words.ids.long()] = True
    assert not changed[~used].any() and changed[used].float().mean() > 0.9  # Adagrad moves only what was looked up
    checkpoints.save(tmp_path / "model.pt", model, preset["model"], task.vocabulary, history)
    loaded, _ = checkpoints.load(tmp_path / "model.pt")
    words = text.pad(task.words, torch.arange(5))
    assert torch.equal(model.eval()(words), loaded(words))


def test_the_best_epoch_is_by_film_the_first_of_equals_and_else_the_last():
    history = [
        {"epoch": 1, "film_accuracy": 0.6},
        {"epoch": 2, "film_accuracy": 0.9},
        {"epoch": 3, "film_accuracy": 0.9},
    ]
    assert training.best_epoch(history)["epoch"] == 2
    assert training.best_epoch([{"epoch": 1}, {"epoch": 2}])["epoch"] == 2


def test_schedules():
    def rates(name):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        schedule, values = training.SCHEDULES[name](optimizer, 200), []
        for _ in range(200):
            values.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return values

    assert set(rates("constant")) == {1.0}
    linear = rates("linear")
    assert linear[0] < 0.02 and linear[-1] < 0.01 and max(linear) == linear[99]
    assert max(rates("one-cycle")) == pytest.approx(1.0)
