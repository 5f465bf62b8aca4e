"""What is trained: log-odds, and where they go."""

import dataclasses

import pytest
import torch

from utils import datasets, presets, tasks, text


def test_log_odds_count_a_film_once():
    films = torch.tensor([1, 1, 1, 2, 3, 4])
    labels = torch.tensor([1, 1, 1, 1, 0, 0])
    texts = ["goblin good", "goblin good", "goblin", "good fun", "bad dull", "bad fun"]
    tokens = text.tokenize_all(texts)
    everyone = torch.arange(6)
    vocabulary = text.build_vocabulary(tokens, everyone, films, 1)
    words = text.encode(tokens, vocabulary)
    reviews = datasets.Reviews(texts, labels, films, labels, labels, "")
    task = tasks.Task(reviews, reviews, everyone, everyone, everyone, vocabulary, words, words)
    odds = dict(zip(vocabulary.itos, tasks.log_odds(task).tolist()))
    assert odds["good"] > odds["goblin"] > 0 > odds["bad"] and odds["<pad>"] == 0
    assert abs(odds["goblin"] + odds["dull"]) < 0.1  # three reviews of one film weigh as one review
    rest = tasks.log_odds(dataclasses.replace(task, train_rows=everyone[3:]))
    assert rest[vocabulary.stoi["goblin"]] == rest[vocabulary.stoi["<unk>"]]  # held-out reviews are not counted


@pytest.mark.parametrize("name", ["encoder", "convolution"])
def test_half_of_a_words_numbers_start_at_its_log_odds_and_half_at_minus_that(task, name):
    started, plain = (tasks.build(presets.PRESETS[name] | {"log_odds_scale": start}, task, 0) for start in (0.1, 0.0))
    for numbers, before in zip(started.embedding_tables(), plain.embedding_tables(), strict=True):
        for half, sign in zip((numbers - before).chunk(2, dim=1), (1, -1)):
            assert torch.allclose(half, sign * 0.1 * tasks.log_odds(task)[:, None].expand_as(half), atol=1e-6)
    moved = [n for n, p in plain.named_parameters() if not torch.equal(p, started.get_parameter(n))]
    assert len(moved) == len(plain.embedding_tables())  # tables, and nothing else


def test_held_out_reviews_give_no_word_to_the_vocabulary(tmp_path, monkeypatch):
    """A word of one held-out review, in films enough, would enter if they were counted."""
    monkeypatch.setattr(tasks, "CACHE", tmp_path)
    toy, test = datasets.load("toy")
    train, film, random = datasets.hold_out(toy.films)
    texts = list(toy.texts)
    for row in torch.cat([film, random]).tolist():
        texts[row] += " zyzzyva"
    spoilt = dataclasses.replace(toy, texts=texts, key="spoilt")
    monkeypatch.setattr(datasets, "load", lambda name: (spoilt, test))
    for options in ({"min_films": 1}, {"max_words": 10**6}):
        task = tasks.prepare("toy", **options)
        assert "zyzzyva" not in task.vocabulary.stoi and "film" in task.vocabulary.stoi
        assert all(map(torch.equal, (task.train_rows, task.film_rows, task.random_rows), (train, film, random)))
        everything = tasks.prepare("toy", **options, hold_out=False)
        assert "zyzzyva" in everything.vocabulary.stoi and everything.train_rows.equal(torch.arange(2000))
        assert len(everything.film_rows) == len(everything.random_rows) == 0


def test_both_halves_become_their_own_words(task):
    for half, words in ((task.reviews, task.words), (task.test, task.test_words)):
        assert len(half) == len(words)
        for row in (0, 7, len(half) - 1):
            said = [task.vocabulary.itos[number] for number in words[row]]
            assert said == text.tokenize(half.texts[row])


def test_reviews_are_cut_after_their_first_words_and_tokenizers_have_caches_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "CACHE", tmp_path)
    cut = tasks.prepare("toy", max_words=50, tokenizer="spaces", max_first_tokens=5)
    whole = tasks.prepare("toy", max_words=50, tokenizer="spaces")
    assert cut.words[3].equal(whole.words[3][:5]) and int(cut.test_words.lengths.max()) == 5
    assert len(cut.vocabulary) == 52
    tasks.prepare("toy", min_films=1)
    names = {f"tokens-toy{kind}-{part}.pt" for kind in ("", "-spaces") for part in ("train", "test")}
    assert {path.name for path in tmp_path.iterdir()} == names


def by_counting(task):
    """`log_odds` from its definition, review by review."""
    seen = {0: set(), 1: set()}
    for row in task.train_rows.tolist():
        label, film = int(task.reviews.labels[row]), int(task.reviews.films[row])
        seen[label] |= {(film, word) for word in task.words[row].tolist()}
    counts = [torch.ones(len(task.vocabulary)), torch.ones(len(task.vocabulary))]
    for label, pairs in seen.items():
        for _, word in pairs:
            counts[label][word] += 1
    odds = (counts[1] / counts[1].sum()).log() - (counts[0] / counts[0].sum()).log()
    return torch.cat([torch.zeros(1), odds[1:]])


def test_log_odds_are_their_definition(task):
    assert torch.allclose(tasks.log_odds(task), by_counting(task), atol=1e-5)


@pytest.mark.parametrize("name", ["encoder", "convolution", "toy"])
def test_a_seed_is_one_model(task, name):
    first, again, other = (tasks.build(presets.PRESETS[name], task, seed).state_dict() for seed in (0, 0, 1))
    assert all(map(torch.equal, first.values(), again.values()))
    assert not all(map(torch.equal, first.values(), other.values()))


def test_every_preset_has_what_it_needs(task):
    """Each builds and answers; none of its names is one that nothing reads."""
    for name, preset in presets.PRESETS.items():
        assert preset.keys() <= {"task", "model_class", "model", "log_odds_scale", "fit"}, name
        assert tasks.build(preset, task, 0).eval()(task.words[0][None].long()).shape == (1, 2)


BAD = {
    "another set": (lambda: tasks.prepare("imbd"), ValueError, "no data set is called 'imbd': use 'imdb' or 'toy'"),
    "another tokenizer": (lambda: tasks.prepare("toy", tokenizer="bert"), KeyError, "bert"),
    "films beyond all": (
        lambda: tasks.prepare("toy", min_films=10**6),
        ValueError,
        "no word is in 1000000 different films",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_call_says_what_is_wrong(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "CACHE", tmp_path)
    call, error, said = BAD[name]
    with pytest.raises(error, match=said):
        call()
