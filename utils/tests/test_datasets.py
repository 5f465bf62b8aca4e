"""What the loaders return: the parts that tell the truth, and the small built-in sets."""

import pytest
import torch

from utils import datasets, imdb


def test_imdb_becomes_reviews(monkeypatch):
    half = {"texts": ["Dull.", "Lovely."], "labels": [0, 1], "films": [7, 9], "stars": [2, 9], "key": "abc"}
    monkeypatch.setattr(imdb, "load", lambda folder: (half, half))
    reviews, test = datasets.load("imdb")
    assert len(reviews) == len(test) == 2 and reviews.pairs.tolist() == [-1, -1]
    assert reviews.texts[1] == "Lovely." and reviews.key == "abc"
    assert [getattr(reviews, name).tolist() for name in ("labels", "films", "stars")] == [[0, 1], [7, 9], [2, 9]]


def test_no_such_set():
    with pytest.raises(ValueError, match="use 'imdb' or 'toy'"):
        datasets.load("imbd")


def test_hold_out_splits_by_film_and_at_random():
    films = torch.randint(0, 300, (2000,), generator=torch.Generator().manual_seed(0))
    train, film, random = datasets.hold_out(films, share=0.1)
    assert sorted(torch.cat([train, film, random]).tolist()) == list(range(2000))
    assert len(film) == len(random) == 200
    assert not torch.isin(films[film], torch.cat([films[train], films[random]])).any()
    assert torch.isin(films[random], films[train]).float().mean() > 0.9
    assert all(map(torch.equal, (train, film, random), datasets.hold_out(films)))
    assert not torch.equal(film, datasets.hold_out(films, seed=1)[1])


def test_toy_set():
    train, test = datasets.load("toy")
    assert (len(train), len(test)) == (2000, 1000) and (test.pairs >= 0).sum() == 500
    for half in (train, test):
        assert half.labels.unique().tolist() == [0, 1] and half.labels.float().mean() == 0.5
    for number in test.pairs[test.pairs >= 0].unique():
        assert test.labels[test.pairs == number].tolist() in ([0, 1], [1, 0])


def test_a_damaged_table_is_refused(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("split\tenglish\titalian\ntrain\ta cat\tun gatto\ntrain\ta dog un cane\n", encoding="utf8")
    with pytest.raises(ValueError, match=r"line 3 of pairs.tsv has not its three columns"):
        datasets.load_pairs(path)
