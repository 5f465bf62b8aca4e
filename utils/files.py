"""Files: tables, tensors, caches, and atomic writes, which leave either the old file or the whole new one."""

import csv
import os
import pickle
import secrets
import shutil
import time
import zipfile
from contextlib import contextmanager, suppress

import torch

TSV_DIALECT = {
    "delimiter": "\t",
    "quoting": csv.QUOTE_NONE,
    "quotechar": None,
    "lineterminator": "\n",
}  # a quotation mark is an ordinary character


class CorruptFileError(ValueError):
    """A file is damaged, or does not have the form that is needed."""


@contextmanager
def atomic_write(path, mode="w", previous=None):
    """Open a file for writing that becomes `path` if all goes well: readers see the old file or the whole new one.

    If `previous` is given, the old file is kept under that name.
    """
    remove_stale_parts(path)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    options = {} if "b" in mode else {"encoding": "utf8", "newline": "\n"}
    try:
        with open(partial, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous and path.exists():  # linked, not renamed: a complete file called `path` exists at every moment
            previous.unlink(missing_ok=True)
            try:
                previous.hardlink_to(path)
            except OSError:  # a file system without links
                shutil.copyfile(path, previous)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_table(path):
    """The rows of a .tsv file as dicts of str; no rows if there is no file. Its first line names the columns.

    Empty lines are skipped. CorruptFileError if a line does not have one cell per column.
    """
    if not path.exists():
        return []
    rows = []
    with path.open(encoding="utf8", newline="") as file:
        reader = csv.DictReader(file, **TSV_DIALECT)
        for row in reader:
            if None in row or None in row.values():
                raise CorruptFileError(
                    f"line {reader.line_num} of {path} does not have one cell per column: correct it"
                )
            rows.append(row)
    return rows


def write_table(path, rows):
    """Write dicts with the same keys as a .tsv file, atomically; no value may hold a tab or a line end."""
    with atomic_write(path) as file:
        table = csv.DictWriter(file, list(rows[0]), **TSV_DIALECT)
        table.writeheader()
        table.writerows(rows)


def read_tensors(path):
    """What `torch.save` wrote to `path`. No code in it is run. CorruptFileError if its own checksums do not match."""
    try:
        with zipfile.ZipFile(path) as parts:
            if parts.testzip() is None:
                return torch.load(path, weights_only=True, map_location="cpu")
    except (zipfile.BadZipFile, RuntimeError, EOFError, pickle.UnpicklingError) as problem:
        raise CorruptFileError(f"{path} is damaged: {problem}") from problem
    raise CorruptFileError(f"{path} is damaged: its checksum is wrong")


def cached(path, key, make):
    """The dict that `make()` returns, kept in the file `path` together with `key`, a str.

    If the file is missing, damaged or has a different key, `make` is called again. A dict that cannot be written is
    returned all the same.
    """
    remove_stale_parts(path)
    try:
        kept = read_tensors(path) if path.exists() else None
        if isinstance(kept, dict) and kept.get("key") == key:
            return kept
    except (CorruptFileError, OSError) as damage:
        print(f"{damage}: it will be created again")
    made = make() | {"key": key}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "wb") as file:
            torch.save(made, file)
    except (OSError, RuntimeError) as problem:  # PyTorch raises RuntimeError if the disk is full
        print(f"{path} cannot be written ({problem}): it will be created again next time")
    return made


def remove_stale_parts(path):
    """Delete parts of `path` left by processes that were killed while writing: those untouched for an hour."""
    for left in path.parent.glob(f"{path.name}.*.part"):
        with suppress(OSError):  # another process was faster, or we lack permission
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink()
