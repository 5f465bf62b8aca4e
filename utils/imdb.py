"""IMDB (Maas et al., 2011): found on disk or downloaded, and checked. `datasets.load("imdb")` uses this module.

The archive is read and never unpacked, so nothing in it can choose where a file is written. The reviews are kept in one
file once they have been checked.
"""

import hashlib
import lzma
import os
import re
import sys
import tarfile
import zlib
from pathlib import Path

import pooch
from tqdm.auto import tqdm

from utils.files import cached

URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
SHA256 = "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe"
TEXTS_SHA256 = "07722abb3341e017c7eb226d36c60cee3d927285d55ce069013c94cbf031a6b7"  # see `fingerprint`
MEMBER = re.compile(r"aclImdb/(train|test)/((pos|neg)/\d+_\d+\.txt|urls_(pos|neg)\.txt)")
MOST_BYTES = 10**9  # in all members; IMDB with its unlabelled reviews has far less
# What tarfile and the modules below it raise for a damaged archive; the last three for impossible sizes.
CORRUPTION_ERRORS = (
    *(OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError, ValueError),
    *(OverflowError, MemoryError, RecursionError),
)


class ImdbUnavailable(RuntimeError):
    """IMDB is neither on disk nor available over the network."""


class ImdbDamaged(ValueError):
    """A file that should hold IMDB, or the one that IMDB_ARCHIVE names, cannot be used."""


def load(folder):
    """The training and the test half, each a dict of `columns` and the texts' key. Kept in `folder`/imdb.pt."""
    key = f"1 {TEXTS_SHA256}"  # to be increased whenever the same texts are kept in a different form
    kept = cached(folder / "imdb.pt", key, lambda: read(find_or_download(folder)))
    return tuple(kept[half] | {"key": f"{half} {key}"} for half in ("train", "test"))


def find_or_download(folder):
    """The path of an IMDB archive: IMDB_ARCHIVE if set, otherwise a download in `folder` with the right checksum."""
    named = os.environ.get("IMDB_ARCHIVE")
    if named:
        if not Path(named).is_file():
            named = os.path.abspath(named)
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
        if (folder / name).exists():  # pooch found it, but its checksum is wrong
            raise ImdbDamaged(
                f"{folder / name} is damaged or cut short, and could not be downloaded again: {first_line(reason)}. "
                "Delete it, connect to the network and run: python3 -m utils data"
            ) from reason
        raise ImdbUnavailable(
            f"IMDB is not on this disk and could not be downloaded: {first_line(reason)}. Three ways to get it:\n"
            "1. connect to the network and run: python3 -m utils data\n"
            "2. set IMDB_ARCHIVE to a local copy, .tar.gz or .tar.xz, and run the same command\n"
            f"3. put {name} into {folder}"
        ) from reason
    finally:
        bar.close()


def first_line(problem):
    return (str(problem) or type(problem).__name__).splitlines()[0].rstrip(":")[:300]


def read(archive, sha256=TEXTS_SHA256):
    """Both halves of `archive`: {"train": columns, "test": columns}, see `columns`.

    ImdbDamaged if it is cut short or damaged, or if its texts do not have the fingerprint `sha256`.
    """
    texts, films, size = {}, {}, 0
    try:
        with tarfile.open(archive) as tar:
            for member in tqdm(tar, f"reading {archive.name}", unit=" files", mininterval=1, file=sys.stdout):
                check(member.size >= 0, f"{member.name} has a negative size")
                size += 512 + member.size
                check(size < MOST_BYTES, "its contents exceed 1 GB")
                if member.isfile() and MEMBER.fullmatch(member.name):
                    name = member.name.removeprefix("aclImdb/")
                    (films if "/urls_" in name else texts)[name] = tar.extractfile(member).read()
            while rest := tar.fileobj.read(2**20):  # gzip's checksum comes at its end
                size += len(rest)
                check(size < MOST_BYTES, "its contents exceed 1 GB")
        check(fingerprint(texts) == sha256, f"it holds {len(texts)} labelled reviews, which are not those of IMDB")
        return {half: columns(half, texts, films) for half in ("train", "test")}
    except CORRUPTION_ERRORS as problem:
        raise ImdbDamaged(f"{archive} cannot be used: {first_line(problem)}. Get it again from {URL}") from problem


def check(holds, problem):
    if not holds:
        raise ValueError(problem)


def fingerprint(texts):
    """SHA-256 over the names and texts of all reviews; it changes if a single letter does."""
    total = hashlib.sha256()
    for name, text in sorted(texts.items()):
        total.update(f"{name} {len(text)}\n".encode() + text)
    return total.hexdigest()


def columns(half, texts, films):
    """The reviews of "train" or "test", negative ones first: texts, labels (0, 1), films (ids), stars."""
    found = {"texts": [], "labels": [], "films": [], "stars": []}
    for label, name in enumerate(("neg", "pos")):
        pattern = re.compile(rf"{half}/{name}/(\d+)_(\d+)\.txt")
        reviews = sorted((int(match[1]), int(match[2]), match[0]) for match in map(pattern.fullmatch, texts) if match)
        urls = re.findall(r"/tt(\d+)", films.get(f"{half}/urls_{name}.txt", b"").decode())  # line i for review i
        check(len(urls) == len(reviews), f"{half}/urls_{name}.txt names {len(urls)} films for {len(reviews)} reviews")
        found["texts"] += [texts[path].decode() for *_, path in reviews]
        found["labels"] += [label] * len(reviews)
        found["films"] += map(int, urls)
        found["stars"] += [stars for _, stars, _ in reviews]
    return found
