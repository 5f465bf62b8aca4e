"""Files: tables, tensors, what is kept for next time, and writing that leaves the old file or the whole new one."""

import csv
import os
import pickle
import secrets
import shutil
import time
import zipfile
from contextlib import contextmanager, suppress

import torch

PLAIN = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None, "lineterminator": "\n"}  # a quote is a quote


class Damaged(ValueError):
    """A file that cannot be used as it is."""


@contextmanager
def written_atomically(path, mode="w", previous=None):
    """A file open for writing that becomes `path` when all went well: readers see the old one or the whole new one.

    What was `path` before becomes `previous`, if that is given.
    """
    sweep(path)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    how = {} if "b" in mode else {"encoding": "utf8", "newline": "\n"}
    try:
        with open(partial, mode, **how) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous and path.exists():  # not renamed: at every moment there is a whole file called `path`
            previous.unlink(missing_ok=True)
            try:
                previous.hardlink_to(path)
            except OSError:  # a file system without links
                shutil.copyfile(path, previous)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_table(path):
    """The rows of a .tsv file as dicts of str; none where there is no file. Its first line names the columns.

    Damaged where a line has more cells, or less; empty lines are skipped.
    """
    if not path.exists():
        return []
    rows = []
    with path.open(encoding="utf8", newline="") as file:
        reader = csv.DictReader(file, **PLAIN)
        for row in reader:
            if None in row or None in row.values():
                raise Damaged(f"line {reader.line_num} of {path} has not one cell for each column: mend it")
            rows.append(row)
    return rows


def write_table(path, rows):
    """Write dicts with the same keys as a .tsv file, all or nothing; values without tabs and line ends."""
    with written_atomically(path) as file:
        table = csv.DictWriter(file, list(rows[0]), **PLAIN)
        table.writeheader()
        table.writerows(rows)


def read_tensors(path):
    """What `torch.save` wrote to `path`: no code is run, and the file's own check sums are. Damaged if they differ."""
    try:
        with zipfile.ZipFile(path) as parts:
            if parts.testzip() is None:
                return torch.load(path, weights_only=True, map_location="cpu")
    except (zipfile.BadZipFile, RuntimeError, EOFError, pickle.UnpicklingError) as problem:
        raise Damaged(f"{path} is damaged: {problem}") from problem
    raise Damaged(f"{path} is damaged: its check sum is wrong")


def cached(path, key, make):
    """The dict that `make()` returns, kept in `path` for next time together with `key`, a str.

    A file that is missing, damaged or of another key is made anew; one that cannot be written is not kept.
    """
    sweep(path)
    try:
        kept = read_tensors(path) if path.exists() else None
        if isinstance(kept, dict) and kept.get("key") == key:
            return kept
    except (Damaged, OSError) as damage:
        print(f"{damage}: it is made again")
    made = make() | {"key": key}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(path, "wb") as file:
            torch.save(made, file)
    except (OSError, RuntimeError) as problem:  # a full disk is a RuntimeError of torch's
        print(f"{path} cannot be written ({problem}): next time it is made again")
    return made


def sweep(path):
    """Delete what a kill in the middle of writing `path` has left: untouched for an hour."""
    for left in path.parent.glob(f"{path.name}.*.part"):
        with suppress(OSError):  # another process was faster, or there is no right to
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink()
