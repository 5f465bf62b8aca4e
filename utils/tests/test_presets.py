"""What is trained: log-odds, and where they go."""

import dataclasses

import pytest
import torch

from utils import datasets, presets, text


def test_log_odds_count_a_film_once():
    films = torch.tensor([1, 1, 1, 2, 3, 4])
    labels = torch.tensor([1, 1, 1, 1, 0, 0])
    texts = ["goblin good", "goblin good", "goblin", "good fun", "bad dull", "bad fun"]
    tokens = text.tokenize_all(texts)
    everyone = torch.arange(6)
    vocabulary = text.build_vocabulary(tokens, everyone, films, 1)
    words = text.encode(tokens, vocabulary)
    reviews = datasets.Reviews(texts, labels, films, labels, labels, "")
    task = presets.Task(reviews, reviews, everyone, everyone, everyone, vocabulary, words, words)
    odds = dict(zip(vocabulary.itos, presets.log_odds(task).tolist()))
    assert odds["good"] > odds["goblin"] > 0 > odds["bad"] and odds["<pad>"] == 0
    assert abs(odds["goblin"] + odds["dull"]) < 0.1  # three reviews of one film weigh as one review
    rest = presets.log_odds(dataclasses.replace(task, train_rows=everyone[3:]))
    assert rest[vocabulary.stoi["goblin"]] == rest[vocabulary.stoi["<unk>"]]  # held-out reviews are not counted


@pytest.mark.parametrize("name", ["encoder", "convolution"])
def test_half_of_a_words_numbers_start_at_its_log_odds_and_half_at_minus_that(task, name):
    started, plain = (presets.build(presets.PRESETS[name] | {"start": start}, task, 0) for start in (0.1, 0.0))
    for numbers, before in zip(started.word_numbers(), plain.word_numbers(), strict=True):
        for half, sign in zip((numbers - before).chunk(2, dim=1), (1, -1)):
            assert torch.allclose(half, sign * 0.1 * presets.log_odds(task)[:, None].expand_as(half), atol=1e-6)
    moved = [n for n, p in plain.named_parameters() if not torch.equal(p, started.get_parameter(n))]
    assert len(moved) == len(plain.word_numbers())  # tables, and nothing else
