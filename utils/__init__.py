"""What an earlier notebook built, ready for the next; `python3 -m utils` is the command line."""

import os
from contextlib import contextmanager


@contextmanager
def written_atomically(path, mode="w"):
    """A file open for writing that becomes `path` when all went well: readers see the old one or the whole new one."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    how = {} if "b" in mode else {"encoding": "utf8", "newline": "\n"}
    try:
        with open(partial, mode, **how) as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
