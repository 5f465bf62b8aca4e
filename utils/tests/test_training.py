"""Training: the toy reviews are learned, twice alike; what is kept; what Ctrl-C leaves."""

import dataclasses

import pytest
import torch

from utils import checkpoints, presets, tasks, text, training
from utils.classifiers import ReviewClassifier

TOY = presets.PRESETS["toy"]


# What one step does, on small things; the toy reviews come after.
PACKED = text.Packed(torch.arange(1, 13, dtype=torch.int32), torch.tensor([0, 6, 7, 12]))  # of 6, 1 and 5 words
LABELS = torch.tensor([1, 0, 1])


def test_batches_hold_head_and_tail_of_the_rows_asked_for_each_with_its_label():
    options = {"batch_size": 2, "max_tokens": 4}
    [(words, labels)] = training.batches(PACKED, LABELS, torch.tensor([0, 1]), **options)
    assert words.tolist() == [[7, 0, 0, 0], [1, 2, 5, 6]] and labels.tolist() == [0, 1]
    [(words, labels)] = training.batches(PACKED, torch.tensor([0, 0, 1]), torch.tensor([2]), **options)
    assert words.tolist() == [[8, 9, 11, 12]] and labels.tolist() == [1]


class Counts(torch.nn.Module):
    """Scores of a review from how often each of 13 words is in it; dropout changes them while training."""

    def __init__(self):
        super().__init__()
        self.classify, self.dropout = torch.nn.Linear(13, 2), torch.nn.Dropout(0.9)

    def forward(self, words):
        counts = torch.nn.functional.one_hot(words, 13).sum(1).float()
        return self.classify(self.dropout(counts))


def test_predictions_are_the_models_on_head_and_tail_without_dropout():
    torch.manual_seed(0)
    model, rows = Counts().train(), torch.tensor([2, 0])
    scores = training.predict(model, PACKED, rows, max_tokens=4)
    wanted = model.eval()(torch.tensor([[8, 9, 11, 12], [1, 2, 5, 6]]))
    assert torch.allclose(scores, wanted)
    loss, accuracy = training.evaluate(model, PACKED, torch.tensor([0, 1, 1]), rows, max_tokens=4)
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(wanted, torch.tensor([1, 0])).item())
    assert accuracy == (wanted.argmax(1) == torch.tensor([1, 0])).float().mean()
    assert training.predict(model, PACKED, torch.arange(0), max_tokens=4).shape == (0, 2)


def test_an_epoch_is_the_five_steps_written_out():
    torch.manual_seed(0)
    batches = [(torch.randint(1, 13, (size, 5)), torch.randint(0, 2, (size,))) for size in (3, 1, 2)]
    ours, theirs = Counts().eval(), Counts()
    for model in (ours, theirs):
        model.dropout.p = 0.0
    theirs.load_state_dict(ours.state_dict())
    optimizers = [torch.optim.SGD(model.parameters(), lr=1.0) for model in (ours, theirs)]
    halving = [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5) for optimizer in optimizers]
    loss, accuracy = training.train_epoch(ours, batches, optimizers[:1], halving[:1])
    assert ours.training
    losses, right = [], 0
    for words, labels in batches:
        scores = theirs(words)
        each = -scores.log_softmax(1)[torch.arange(len(labels)), labels]
        losses += each.tolist()
        right += sum(int(row.argmax()) == int(label) for row, label in zip(scores, labels))
        gradients = torch.autograd.grad(each.mean(), list(theirs.parameters()))
        rate = optimizers[1].param_groups[0]["lr"]
        with torch.no_grad():
            for weight, gradient in zip(theirs.parameters(), gradients):
                weight -= rate * gradient
        optimizers[1].step()
        halving[1].step()
    assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(ours.parameters(), theirs.parameters()))
    assert loss == pytest.approx(sum(losses) / 6, abs=1e-5) and accuracy == pytest.approx(right / 6)


def test_what_is_looked_up_has_an_optimizer_and_a_rate_of_its_own():
    model = ReviewClassifier(20, 8, 2, 8, 1)
    [adam, adagrad], _ = training.optimize(model, 10, learning_rate=0.3, schedule="constant", embedding_lr=0.7)
    assert [one.param_groups[0]["lr"] for one in (adam, adagrad)] == [0.3, 0.7]
    assert type(adam) is torch.optim.AdamW and type(adagrad) is torch.optim.Adagrad
    [table] = adagrad.param_groups[0]["params"]
    assert table is model.embedding.weight and adagrad.param_groups[0]["initial_accumulator_value"] == 1e-6
    rest = {id(p) for p in model.parameters()} - {id(table)}
    assert {id(p) for p in adam.param_groups[0]["params"]} == rest
    [adam], _ = training.optimize(model, 10, learning_rate=0.3, schedule="constant")
    assert len(adam.param_groups[0]["params"]) == len(rest) + 1


def test_words_are_left_out_while_training_alone_and_by_the_seed(task, monkeypatch):
    seen, shares, validated = [], [], []
    plain, drop = training.batches, text.Packed.drop_words

    def batches(packed, labels, rows, **options):
        seen.append((packed.ids.clone(), rows))
        return plain(packed, labels, rows[:64], **options)

    def dropped(self, share, generator=None):
        shares.append((share, generator is not None, torch.initial_seed()))
        return drop(self, share, generator)

    def evaluated(model, packed, labels, rows, **options):
        validated.append((packed, rows))
        return 0.0, 0.5

    monkeypatch.setattr(training, "batches", batches)
    monkeypatch.setattr(training, "evaluate", evaluated)
    monkeypatch.setattr(text.Packed, "drop_words", dropped)
    for seed in (0, 0, 1):
        learn(task, seed, epochs=1, word_dropout=0.3)
    assert shares == [(0.3, True, seed) for seed in (0, 0, 1)] and all(rows.equal(task.train_rows) for _, rows in seen)
    (first, _), (again, _), (other, _) = seen
    assert first.equal(again) and not first.equal(other) and 0.65 < len(first) / len(task.words.ids) < 0.75
    assert all(packed.ids.equal(task.words.ids) for packed, _ in validated)
    for film, random in zip(validated[::2], validated[1::2]):
        assert film[1].equal(task.film_rows) and random[1].equal(task.random_rows)


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


@pytest.mark.parametrize("which", [0, -1])
def test_a_gradient_that_is_not_finite_is_found_in_any_parameter(task, which):
    model = tasks.build(presets.PRESETS["toy"], task, 0)
    list(model.parameters())[which].register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(FloatingPointError, match="a gradient is not finite: rate .* step 1 of epoch 1"):
        training.fit(model, task, **presets.PRESETS["toy"]["fit"])


def test_one_validation_alone_will_do(task, capsys):
    alone = dataclasses.replace(task, random_rows=task.random_rows[:0])
    _, [row] = learn(alone, epochs=1)
    assert "film_accuracy" in row and "random" not in capsys.readouterr().out


def test_it_computes_with_the_threads_asked_for_and_then_as_before(task, monkeypatch):
    during, plain = set(), training.train_epoch
    monkeypatch.setattr(training, "train_epoch", lambda *args: during.add(torch.get_num_threads()) or plain(*args))
    torch.set_num_threads(2)
    try:
        learn(task, epochs=1)
        assert during == {presets.PRESETS["toy"]["fit"]["threads"]} == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_fingerprint_leaves_the_model_in_its_mode(task):
    model = tasks.build(presets.PRESETS["toy"], task, 0).eval()
    found = training.fingerprint(model, task)
    assert not any(part.training for part in model.modules()) and training.fingerprint(model.train(), task) == found


def test_ctrl_c_keeps_what_was_learned(task, monkeypatch, capsys):
    """The weights of the best epoch that was finished; here each epoch is held against what was there after it."""
    states, accuracies = [], iter([0.6, 0.5, 0.7, 0.5, 0.65, 0.5])  # film and random, of three epochs

    def interrupted(model, *args, **options):
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        if len(states) >= 7:  # in the fourth
            raise KeyboardInterrupt
        return 0.0, next(accuracies)

    monkeypatch.setattr(training, "evaluate", interrupted)
    model, history = learn(task, epochs=5)
    said = "stopped in epoch 4: the model is as after epoch 2, its best"
    assert len(history) == 3 and said in capsys.readouterr().out
    assert all(map(torch.equal, model.state_dict().values(), states[2].values()))
    assert not any(map(torch.equal, states[2].values(), states[6].values()))
    assert learn(task, epochs=5)[1] == []  # the next look comes in its first epoch
    assert "stopped in epoch 1: no epoch was finished" in capsys.readouterr().out


def test_predictions_come_in_the_order_asked_for(task):
    model = ReviewClassifier(len(task.vocabulary), **TOY["model"])
    rows = torch.tensor([5, 900, 3, 77])
    scores = training.predict(model, task.words, rows, max_tokens=128)
    for row, one in zip(rows, scores):
        assert torch.allclose(model(task.words[row][None].long()), one, atol=1e-5)


def test_the_convolution_learns_with_nothing_held_out_and_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "CACHE", tmp_path)
    preset = presets.PRESETS["convolution"] | {"task": {"name": "toy", "min_films": 1, "hold_out": False}}
    task = tasks.prepare(**preset["task"])
    assert len(task.train_rows) == len(task.reviews) and len(task.film_rows) == len(task.random_rows) == 0
    preset |= {"model": preset["model"] | {"num_units": 8}}
    model = tasks.build(preset, task, 0)
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
