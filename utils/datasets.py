"""The data sets: `load` reads the reviews of IMDB (Maas et al., 2011) or of the toy set, `table` a table in data/."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from utils import imdb
from utils.files import read_table
from utils.imdb import ImdbDamaged, ImdbUnavailable

__all__ = ["DATA", "ImdbDamaged", "ImdbUnavailable", "Reviews", "hold_out", "load", "table"]
DATA = Path(__file__).resolve().parent.parent / "data"


@dataclass(frozen=True)
class Reviews:
    """Reviews in a fixed order, n of them.

    texts: sequence of str. labels (n,): 0 = negative, 1 = positive. films (n,): the id of the film that each is about
    (in the toy set, of its sentence frame). stars (n,): 0 where unknown. pairs (n,): the id of the mirror pair, -1 for
    none. key: a str that changes whenever the texts do.
    """

    texts: Sequence
    labels: torch.Tensor
    films: torch.Tensor
    stars: torch.Tensor
    pairs: torch.Tensor
    key: str

    def __len__(self):
        return len(self.labels)


def load(name, folder=DATA):
    """Training and test reviews of "imdb" or "toy", as two `Reviews`.

    ImdbUnavailable if IMDB is neither on disk nor on the network, ImdbDamaged if what is there cannot be used.
    """
    if name == "toy":
        return read_toy_reviews(DATA / "toy_reviews_train.tsv"), read_toy_reviews(DATA / "toy_reviews_test.tsv")
    if name != "imdb":
        raise ValueError(f"no data set is called {name!r}: use 'imdb' or 'toy'")
    return tuple(reviews_from_lists(pairs=[-1] * len(half["labels"]), **half) for half in imdb.load(folder))


def reviews_from_lists(*, texts, key, **numbers):
    """`Reviews` from lists; all but the texts become tensors."""
    return Reviews(texts=texts, key=key, **{name: torch.tensor(column) for name, column in numbers.items()})


def table(name):
    """The rows of the file `name` in data/, a .tsv whose first line names the columns, as dicts of str."""
    return read_table(DATA / name)


def hold_out(films, share=0.1, seed=0):
    """Split rows into training, validation by film and random validation. Returns three sorted tensors of rows.

    Validation by film takes `share` of all rows, whole films at a time, so that training sees none of its films. The
    random validation takes as many single reviews of the other films. `films` (n,) holds the film of each row.
    ValueError if share is not below 0.5.
    """
    if not 0 <= share < 0.5:
        raise ValueError(f"{share=}: each of the two validation sets takes this share, so use less than 0.5")
    generator = torch.Generator().manual_seed(seed)
    wanted = int(share * len(films))
    names, film, sizes = films.unique(return_inverse=True, return_counts=True)
    held, total = torch.zeros(len(names), dtype=torch.bool), 0
    for i in torch.randperm(len(names), generator=generator).tolist():
        if total + sizes[i] <= wanted:
            held[i], total = True, total + int(sizes[i])
    rest = (~held[film]).nonzero().flatten()
    rest = rest[torch.randperm(len(rest), generator=generator)]
    return rest[wanted:].sort().values, held[film].nonzero().flatten(), rest[:wanted].sort().values


def read_toy_reviews(path):
    """The `Reviews` in a .tsv file with the columns label, frame, pair and text; frames count as films."""
    rows = read_table(path)
    frames = {frame: i for i, frame in enumerate(sorted({row["frame"] for row in rows}))}
    return reviews_from_lists(
        texts=[row["text"] for row in rows],
        labels=[int(row["label"]) for row in rows],
        films=[frames[row["frame"]] for row in rows],
        stars=[0] * len(rows),
        pairs=[int(row["pair"] or -1) for row in rows],
        key=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
