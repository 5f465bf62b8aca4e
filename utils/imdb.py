"""IMDB (Maas et al., 2011), found or fetched, and checked: what `datasets.load("imdb")` stands on.

It is looked for as the tree `aclImdb`, then as an archive named by the environment variable IMDB_ARCHIVE, then
downloaded (84 MB). Whatever the source, it is checked before it is used.
"""

import contextlib
import gzip
import hashlib
import lzma
import os
import re
import shutil
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import pooch
from tqdm.auto import tqdm

URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
SHA256 = "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe"
TEXTS_SHA256 = "07722abb3341e017c7eb226d36c60cee3d927285d55ce069013c94cbf031a6b7"  # see `fingerprint`
MEMBER = re.compile(r"aclImdb/(train|test)/((pos|neg)/\d+_\d+\.txt|urls_(pos|neg)\.txt)")
UNPACKING = "unpacking-"
MOST_BYTES = 10**9  # unpacked; IMDB with its unlabelled reviews has far less
AGAIN = "then run: python3 -m utils data"
# What tarfile and what it stands on raise for a damaged archive; the last for a date that no file can have.
DAMAGE = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, ValueError, OverflowError)
DATA_FILTER = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in Python 3.11.0 to 3.11.3


class ImdbUnavailable(RuntimeError):
    """IMDB is neither on the disk nor to be had over the network."""


class ImdbDamaged(ValueError):
    """What there is of IMDB, or what IMDB_ARCHIVE names, cannot be used."""


def load(folder):
    """Training and test half of the tree `folder`/aclImdb, unpacked first where it is not there; see `read_tree`."""
    tree = folder / "aclImdb"
    if not tree.exists():
        unpack(find_archive(folder), tree, sha256=TEXTS_SHA256)
    try:
        return read_tree(tree / "train"), read_tree(tree / "test")
    except ValueError as problem:
        raise ImdbDamaged(f"{tree} is not the IMDB set: {problem}. Delete it; {AGAIN}") from None


class Files(Sequence):
    """The texts of files, read when asked for."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        try:
            return Path(self.paths[i]).read_text("utf8")
        except UnicodeDecodeError as problem:
            raise ImdbDamaged(f"{self.paths[i]} is no text in UTF-8. Delete the tree it is in; {AGAIN}") from problem


def read_tree(root, per_class=12500):
    """One half of IMDB from `root`/{neg,pos}/<id>_<stars>.txt and `root`/urls_{neg,pos}.txt, checked.

    Returns a dict of columns: texts (left on the disk until asked for), labels, films, stars; and key, which changes
    whenever the texts do. Raises ValueError that says what is wrong.
    """
    half, paths, labels, films, stars, stamps = root.name, [], [], [], [], []
    for label, name in enumerate(("neg", "pos")):
        found = {}
        for entry in os.scandir(root / name) if (root / name).is_dir() else ():
            match = re.fullmatch(r"(\d+)_(\d+)\.txt", entry.name)
            check(match, f"{half}/{name}/{entry.name} is not called <id>_<stars>.txt")
            status = entry.stat()
            check(status.st_size, f"{half}/{name}/{entry.name} is empty")
            check(int(match[1]) not in found, f"{half}/{name} holds two reviews with the number {match[1]}")
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
            check(7 <= star <= 10 if label else 1 <= star <= 4, f"{half}/{name}/{i}_{star}.txt has {star} stars")
            paths.append(path)
            stars.append(star)
            film = re.search(r"/tt(\d+)", urls[i])
            check(film, f"line {i + 1} of {half}/urls_{name}.txt names no film")
            films.append(int(film[1]))
            labels.append(label)
    key = hashlib.sha256("\n".join(sorted(stamps)).encode()).hexdigest()
    return {"texts": Files(paths), "labels": labels, "films": films, "stars": stars, "key": key}


def fingerprint(tree):
    """SHA-256 over the names and texts of all reviews: it changes with a single letter."""
    total = hashlib.sha256()
    for name, path in sorted((path.relative_to(tree).as_posix(), path) for path in tree.glob("*/*/*.txt")):
        text = path.read_bytes()
        total.update(f"{name} {len(text)}\n".encode() + text)
    return total.hexdigest()


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
    base, name = URL.rsplit("/", 1)
    files = pooch.create(folder, f"{base}/", registry={name: f"sha256:{SHA256}"}, retry_if_failed=3)
    try:
        return Path(files.fetch(name, downloader=get))
    except (OSError, ValueError) as reason:
        raise ImdbUnavailable(
            f"IMDB is not on this disk and could not be downloaded: {first_line(reason)}. Three ways to get it:\n"
            "1. connect to the network and run: python3 -m utils data\n"
            "2. set IMDB_ARCHIVE to a local copy, .tar.gz or .tar.xz, and run the same\n"
            f"3. unpack {name} so that {folder / 'aclImdb' / 'train' / 'pos'} exists"
        ) from reason
    finally:
        bar.close()


def first_line(problem):
    return (str(problem) or type(problem).__name__).splitlines()[0].rstrip(":")[:300]


def unpack(archive, tree, per_class=12500, sha256=None):
    """Unpack the labelled reviews of `archive` to `tree`, all or nothing; the first of several processes does it.

    Only regular files whose whole name fits `MEMBER` are written. Raises ImdbDamaged if the archive is cut short,
    incomplete, not of the fingerprint `sha256` (if given), or names a file outside its own folder; ImdbUnavailable
    where there is no room or no right to write.
    """
    try:
        tree.parent.mkdir(parents=True, exist_ok=True)
        sweep(tree.parent)
        with tempfile.TemporaryDirectory(dir=tree.parent, prefix=UNPACKING) as temporary:
            extract(archive, Path(temporary), per_class, sha256)
            try:
                os.replace(Path(temporary, "aclImdb"), tree)
            except OSError:
                if not tree.exists():  # else another process was faster
                    raise
    except OSError as problem:
        raise ImdbUnavailable(
            f"{archive} cannot be unpacked into {tree.parent}: {first_line(problem)}. It takes 300 MB: make "
            f"room, get the right to write there, or let {tree} be a link to a copy elsewhere"
        ) from problem


def sweep(folder):
    """Delete what an unpacking that was killed has left: untouched for an hour."""
    for left in folder.glob(f"{UNPACKING}*"):
        with contextlib.suppress(FileNotFoundError):  # another process is deleting its own
            newest = max(path.stat().st_mtime for path in (left, *left.glob("*"), *left.glob("*/*/*")))
            if time.time() - newest > 3600:
                shutil.rmtree(left, ignore_errors=True)


def extract(archive, folder, per_class, sha256):
    try:
        with tarfile.open(archive) as tar:
            size = 0
            for member in tqdm(tar, f"unpacking {archive.name}", unit=" files", mininterval=1, file=sys.stdout):
                size += member.size
                check(size < MOST_BYTES, "it is not safe, for it grows beyond 1 GB")
                inside = not (member.name.startswith("/") or ".." in member.name.split("/"))
                check(inside, f"it is not safe, for it names {member.name}")
                if member.isfile() and MEMBER.fullmatch(member.name):
                    tar.extract(member, folder, **DATA_FILTER)
        for half in ("train", "test"):
            read_tree(folder / "aclImdb" / half, per_class)
        check(sha256 in (None, fingerprint(folder / "aclImdb")), "a text in it differs from IMDB's")
    except DAMAGE as problem:
        raise ImdbDamaged(f"{archive} cannot be used: {first_line(problem)}. Get it again from {URL}") from problem
