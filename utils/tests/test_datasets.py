"""What the loaders return: the parts that tell the truth, and the small built-in sets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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
    rest = torch.cat([train, random]).sort().values
    assert 50 < torch.isin(random, rest[: len(rest) // 2]).sum() < 150  # from anywhere
    assert all(map(torch.equal, (train, film, random), datasets.hold_out(films)))
    assert not torch.equal(film, datasets.hold_out(films, seed=1)[1])


def test_toy_set():
    train, test = datasets.load("toy")
    assert (len(train), len(test)) == (2000, 1000) and (test.pairs >= 0).sum() == 500
    for half in (train, test):
        assert half.labels.unique().tolist() == [0, 1] and half.labels.float().mean() == 0.5
    for number in test.pairs[test.pairs >= 0].unique():
        assert test.labels[test.pairs == number].tolist() in ([0, 1], [1, 0])


def rows_of(name):
    """A stored table as it stands in its file, read without our code."""
    lines = (datasets.DATA / name).read_bytes().decode("utf8").split("\n")
    return [dict(zip(lines[0].split("\t"), line.split("\t"))) for line in lines[1:] if line]


def test_the_toy_set_is_what_stands_in_its_files():
    for half, part in zip(datasets.load("toy"), ("train", "test"), strict=True):
        rows = rows_of(f"toy_reviews_{part}.tsv")
        assert list(half.texts) == [row["text"] for row in rows]
        assert half.labels.tolist() == [int(row["label"]) for row in rows]
        assert half.pairs.tolist() == [int(row["pair"]) if row["pair"] else -1 for row in rows]
        assert half.stars.tolist() == [0] * len(rows)
        numbers = {}
        for row, film in zip(rows, half.films.tolist()):
            assert numbers.setdefault(row["frame"], film) == film
        assert len(set(numbers.values())) == len(numbers)


def test_praise_is_labelled_1():
    """What swapped labels would turn round: a set with as many of both is symmetric, its words are not."""
    for half in datasets.load("toy"):
        ordinary = [(text, label) for text, label, pair in zip(half.texts, half.labels, half.pairs) if pair < 0]
        praised = [label for text, label in ordinary if " masterpiece" in text and " not " not in text]
        share = sum(praised) / len(praised)
        assert share > 0.6


def test_the_key_is_of_the_texts(tmp_path):
    keys = [half.key for half in datasets.load("toy")]
    path = tmp_path / "toy_reviews_train.tsv"
    path.write_bytes((datasets.DATA / path.name).read_bytes().replace(b"lovely", b"lonely", 1))
    assert len({*keys, datasets.read_toy_reviews(path).key}) == 3


@pytest.mark.parametrize("path", sorted(datasets.DATA.glob("*.tsv")), ids=lambda path: path.stem)
def test_a_table_is_what_stands_in_its_file(path):
    assert datasets.table(path.name) == rows_of(path.name) != []


films_of = st.lists(st.integers(0, 6), max_size=40).map(torch.tensor).map(torch.Tensor.long)


@given(films_of, st.floats(0, 0.49), st.integers(0, 9))
def test_any_films_are_split_in_three(films, share, seed):
    train, film, random = datasets.hold_out(films, share, seed)
    wanted = int(share * len(films))
    assert torch.cat([train, film, random]).sort().values.equal(torch.arange(len(films)))
    assert len(film) <= wanted and len(random) == min(wanted, len(films) - len(film))
    assert all(rows.equal(rows.sort().values) for rows in (train, film, random))
    assert not set(films[film].tolist()) & set(films[torch.cat([train, random])].tolist())
    assert all(map(torch.equal, (train, film, random), datasets.hold_out(films, share, seed)))


BAD = {
    "another set": (lambda: datasets.load("IMDB"), ValueError, "no data set is called 'IMDB': use 'imdb' or 'toy'"),
    "no set": (lambda: datasets.load(""), ValueError, "no data set is called ''"),
    "nothing": (lambda: datasets.load(None), ValueError, "no data set is called None"),
    "a half": (lambda: datasets.hold_out(torch.arange(9), 0.5), ValueError, "share=0.5: .* use less than 0.5"),
    "more than all": (lambda: datasets.hold_out(torch.arange(9), 2), ValueError, "share=2: .* use less than 0.5"),
    "less than nothing": (lambda: datasets.hold_out(torch.arange(9), -0.1), ValueError, "share=-0.1: "),
    "no number": (lambda: datasets.hold_out(torch.arange(9), float("nan")), ValueError, "share=nan: "),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_call_says_what_is_wrong(name):
    call, error, said = BAD[name]
    with pytest.raises(error, match=said):
        call()
