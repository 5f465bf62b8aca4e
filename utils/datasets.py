"""Where texts come from: IMDB (Maas et al., 2011) and the small built-in sets, one loader each.

IMDB is looked for as the tree `data/aclImdb`, then as an archive named by the environment variable IMDB_ARCHIVE, then
downloaded (84 MB). Whatever the source, it is checked before it is used.
"""

import gzip
import hashlib
import lzma
import os
import re
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch
import torch
from tqdm.auto import tqdm

from utils.files import read_table

DATA = Path(__file__).resolve().parent.parent / "data"
IMDB_URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
IMDB_SHA256 = "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe"
MEMBER = re.compile(r"aclImdb/(train|test)/((pos|neg)/\d+_\d+\.txt|urls_(pos|neg)\.txt)")


class ImdbUnavailable(RuntimeError):
    """IMDB is neither on the disk nor to be had over the network."""


class ImdbDamaged(ValueError):
    """What there is of IMDB, or what IMDB_ARCHIVE names, cannot be used."""


@dataclass(frozen=True)
class Reviews:
    """Reviews in a fixed order, n of them.

    texts: sequence of str; labels (n,) 0 = negative, 1 = positive; films (n,) a number for the film each is about (in
    the toy set, for its sentence frame); stars (n,), 0 where unknown; pairs (n,) the number of the mirror pair, -1 for
    none; key: a str that changes whenever the texts do.
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

    Raises ImdbUnavailable where neither disk nor network has IMDB, ImdbDamaged where what there is cannot be used.
    """
    if name == "toy":
        return read_reviews(DATA / "toy_reviews_train.tsv"), read_reviews(DATA / "toy_reviews_test.tsv")
    if name != "imdb":
        raise ValueError(f"no data set is called {name!r}: use 'imdb' or 'toy'")
    tree = folder / "aclImdb"
    if not tree.exists():
        unpack(find_archive(folder), tree)
    try:
        return read_tree(tree / "train"), read_tree(tree / "test")
    except ValueError as problem:
        raise ImdbDamaged(f"{tree} is not the IMDB set: {problem}. Delete it and run: python3 -m utils data") from None


def hold_out(films, share=0.1, seed=0):
    """Split rows in three: training, validation by film, random validation. Returns three sorted tensors of rows.

    Validation by film takes `share` of all rows, whole films at a time, so that training sees none of its films; the
    random validation takes as many single reviews of the other films. films (n,).
    """
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


def read_reviews(path):
    """A built-in set: a .tsv with the columns label, frame, pair and text."""
    rows = read_table(path)
    frames = {frame: i for i, frame in enumerate(sorted({row["frame"] for row in rows}))}
    return Reviews(
        texts=[row["text"] for row in rows],
        labels=torch.tensor([int(row["label"]) for row in rows]),
        films=torch.tensor([frames[row["frame"]] for row in rows]),
        stars=torch.zeros(len(rows), dtype=torch.int64),
        pairs=torch.tensor([int(row["pair"] or -1) for row in rows]),
        key=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def load_pairs(path=DATA / "english_italian.tsv"):
    """The English–Italian sentences by part: {"train": [(english, italian), …], "validation": …, "test": …, "long": …}.

    Words have spaces between them; data/README.md says what is in which part. Raises ValueError for a damaged line.
    """
    parts = {}
    for number, line in enumerate(path.read_text("utf8").splitlines(), 1):
        cells = line.split("\t")
        check(len(cells) == 3 and all(cells), f"line {number} of {path.name} has not its three columns: {line!r}")
        if number > 1:  # the first line names the columns
            parts.setdefault(cells[0], []).append((cells[1], cells[2]))
    return parts


class Files(Sequence):
    """The texts of files, read when asked for."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        return Path(self.paths[i]).read_text("utf8")


def read_tree(root, per_class=12500):
    """One half of IMDB from `root`/{neg,pos}/<id>_<stars>.txt and `root`/urls_{neg,pos}.txt, checked.

    Raises ValueError that says what is wrong. Texts stay on the disk until asked for.
    """
    half, paths, labels, films, stars, stamps = root.name, [], [], [], [], []
    for label, name in enumerate(("neg", "pos")):
        found = {}
        for entry in os.scandir(root / name) if (root / name).is_dir() else ():
            match = re.fullmatch(r"(\d+)_(\d+)\.txt", entry.name)
            check(match, f"{half}/{name}/{entry.name} is not called <id>_<stars>.txt")
            status = entry.stat()
            check(status.st_size, f"{half}/{name}/{entry.name} is empty")
            found[int(match[1])] = entry.path, int(match[2])
            stamps.append(f"{name}/{entry.name} {status.st_size} {status.st_mtime_ns}")
        check(
            sorted(found) == list(range(per_class)),
            f"{half}/{name} holds {len(found)} reviews, not {per_class} numbered from 0",
        )
        urls = (root / f"urls_{name}.txt").read_text("utf8").split() if (root / f"urls_{name}.txt").exists() else []
        check(len(urls) == per_class, f"{half}/urls_{name}.txt names {len(urls)} films, not {per_class}")
        for i in range(per_class):
            path, star = found[i]
            check((star >= 7) if label else (1 <= star <= 4), f"{half}/{name}/{i}_{star}.txt has {star} stars")
            paths.append(path)
            stars.append(star)
            film = re.search(r"/tt(\d+)", urls[i])
            check(film, f"line {i + 1} of {half}/urls_{name}.txt names no film")
            films.append(int(film[1]))
            labels.append(label)
    return Reviews(
        texts=Files(paths),
        labels=torch.tensor(labels),
        films=torch.tensor(films),
        stars=torch.tensor(stars),
        pairs=torch.full((len(labels),), -1),
        key=hashlib.sha256("\n".join(sorted(stamps)).encode()).hexdigest(),
    )


def check(holds, problem):
    if not holds:
        raise ValueError(problem)


def find_archive(folder):
    """The path of an IMDB archive: IMDB_ARCHIVE if set, else downloaded to `folder` and held to its check sum."""
    named = os.environ.get("IMDB_ARCHIVE")
    if named:
        if not Path(named).is_file():
            raise ImdbDamaged(f"IMDB_ARCHIVE={named}: there is no such file. Correct the variable, or unset it")
        return Path(named)
    pooch.get_logger().setLevel("WARNING")
    bar = tqdm(total=0, unit="B", unit_scale=True, desc="IMDB", file=sys.stdout)
    get = pooch.HTTPDownloader(progressbar=bar, timeout=30)
    try:
        return Path(pooch.retrieve(IMDB_URL, f"sha256:{IMDB_SHA256}", Path(IMDB_URL).name, folder, downloader=get))
    except (OSError, ValueError) as reason:
        raise ImdbUnavailable(
            f"IMDB is not on this disk and could not be downloaded ({type(reason).__name__}). Three ways to get it:\n"
            "1. connect to the network and run: python3 -m utils data\n"
            "2. set IMDB_ARCHIVE to a local copy, .tar.gz or .tar.xz, and run the same\n"
            f"3. unpack {Path(IMDB_URL).name} so that {folder / 'aclImdb' / 'train' / 'pos'} exists"
        ) from reason
    finally:
        bar.close()


def unpack(archive, tree, per_class=12500):
    """Unpack the labelled reviews of `archive` to `tree`, all or nothing.

    Only regular files whose whole name fits `MEMBER` are written, at paths made here. Raises ImdbDamaged if the archive
    is cut short, incomplete, or names a file outside its own folder.
    """
    tree.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=tree.parent, prefix="unpacking-") as temporary:
        try:
            with tarfile.open(archive) as tar:
                for member in tqdm(tar, f"unpacking {archive.name}", unit=" files", mininterval=1, file=sys.stdout):
                    inside = not (member.name.startswith("/") or ".." in member.name.split("/"))
                    check(inside, f"it is not safe, for it names {member.name}")
                    if member.isfile() and MEMBER.fullmatch(member.name):
                        path = Path(temporary, member.name)
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(tar.extractfile(member).read())
            for half in ("train", "test"):
                read_tree(Path(temporary, "aclImdb", half), per_class)
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, ValueError) as problem:
            raise ImdbDamaged(
                f"{archive} cannot be used: {str(problem).splitlines()[0].rstrip(':')}. Get it again from {IMDB_URL}"
            ) from problem
        os.replace(Path(temporary, "aclImdb"), tree)
