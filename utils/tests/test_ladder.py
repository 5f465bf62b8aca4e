"""The ladder: each rung changes what it says, results are appended and never measured twice."""

import dataclasses

import torch

from utils import datasets, ladder, text, training


def flat(preset):
    """{part.name: value} of a preset; what is None is as if it were not there."""
    pairs = {}
    for part, value in preset.items():
        entries = value.items() if isinstance(value, dict) else [("", value)]
        pairs |= {f"{part}.{name}": entry for name, entry in entries if entry is not None}
    return pairs


def test_from_the_lecture_to_the_encoder_one_change_at_a_time():
    for name, (_, below, settings, _) in ladder.RUNGS.items():
        if name in ("lecture", "small", "neighbours"):  # another class with arguments of its own
            continue
        one, other = flat(settings), flat(ladder.RUNGS[below][2])
        changed = {key for key in one | other if one.get(key) != other.get(key)}
        allowed = {"cycle": 4, "tail": 2, "films": 2, "width": 2, "removed": 2}.get(name, 1)
        assert 1 <= len(changed) <= allowed, (name, changed)


def test_the_ladder_ends_at_the_presets():
    for name in ("lecture", "encoder", "default", "best"):
        rung, preset = flat(ladder.RUNGS[name][2]), flat(training.PRESETS[name])
        own = {"task.tokenizer": "basic_english", "fit.schedule": "one-cycle", "fit.word_dropout": 0}
        for key in rung.keys() | preset.keys():
            if key != "task.hold_out":
                assert rung.get(key, own.get(key)) == preset.get(key, own.get(key)), (name, key)


def test_results_are_appended_and_not_measured_again(tmp_path, monkeypatch, capsys):
    toy = training.PRESETS["toy"]
    short = toy | {"fit": toy["fit"] | {"epochs": 1}}
    monkeypatch.setattr(training, "CACHE", tmp_path)
    monkeypatch.setattr(ladder, "RUNGS", {"a": ("first", None, short, 1), "b": ("second", "a", short, 2)})
    path = tmp_path / "ladder.tsv"
    assert ladder.climb(["a"], path) == 0
    begun = path.read_text()
    assert ladder.climb(["a", "b"], path) == 0
    assert path.read_text().startswith(begun)  # appended
    assert [(row["rung"], row["seed"]) for row in ladder.read(path)] == [("a", "0"), ("b", "0"), ("b", "1")]
    whole = path.read_text()
    assert ladder.climb(["a", "b"], path) == 0 and path.read_text() == whole

    def interrupted(*args, **options):
        return []

    monkeypatch.setattr(training, "fit", interrupted)
    monkeypatch.setattr(ladder, "RUNGS", {"c": ("third", "b", short, 1)})
    assert ladder.climb(["c"], path) == 130 and path.read_text() == whole  # Ctrl-C: what was measured stays


def test_log_odds_count_a_film_once():
    films = torch.tensor([1, 1, 1, 2, 3, 4])
    labels = torch.tensor([1, 1, 1, 1, 0, 0])
    texts = ["goblin good", "goblin good", "goblin", "good fun", "bad dull", "bad fun"]
    tokens = text.tokenize_all(texts)
    everyone = torch.arange(6)
    vocabulary = text.build_vocabulary(tokens, everyone, films, 1)
    words = text.encode(tokens, vocabulary)
    reviews = datasets.Reviews(texts, labels, films, labels, labels, "")
    task = training.Task(reviews, reviews, everyone, everyone, everyone, vocabulary, words, words)
    odds = dict(zip(vocabulary.itos, training.log_odds(task).tolist()))
    assert odds["good"] > odds["goblin"] > 0 > odds["bad"] and odds["<pad>"] == 0
    assert abs(odds["goblin"] + odds["dull"]) < 0.1  # three reviews of one film weigh as one review
    rest = training.log_odds(dataclasses.replace(task, train=everyone[3:]))
    assert rest[vocabulary.stoi["goblin"]] == rest[vocabulary.stoi["<unk>"]]  # held-out reviews are not counted
