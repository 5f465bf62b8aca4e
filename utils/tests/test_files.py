"""Tables come back as they were written, and a write that fails leaves the old file."""

import os
import re
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from utils.cli import environment
from utils.files import (
    CorruptFileError,
    atomic_write,
    cached,
    read_table,
    read_tensors,
    remove_stale_parts,
    write_table,
)


def test_a_table_comes_back(tmp_path):
    path = tmp_path / "one.tsv"
    rows = [{"name": 'a "quoted" name, with a comma', "value": "0.5"}, {"name": "è", "value": ""}]
    write_table(path, rows)
    assert read_table(path) == rows and path.read_bytes().count(b"\n") == 3 and b"\r" not in path.read_bytes()
    assert read_table(tmp_path / "absent.tsv") == []
    assert path.read_text("utf8").splitlines()[1] == 'a "quoted" name, with a comma\t0.5'  # as it is, for any reader


@pytest.mark.parametrize("line", ["train\ta cat", "train", "a\tb\tc\td", "train a cat", "\t", "a\tb\tc\t"])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "pairs.tsv"
    path.write_text(f"split\tenglish\titalian\ntrain\ta dog\tun cane\n{line}\ntrain\t\t\n", encoding="utf8")
    with pytest.raises(CorruptFileError, match=r"line 3 of .*pairs.tsv does not have one cell per column: correct it"):
        read_table(path)


def test_empty_lines_of_a_table_are_skipped_and_counted(tmp_path):
    path = tmp_path / "one.tsv"
    path.write_text("a\tb\n1\t2\n\n3\t4\n", encoding="utf8")
    assert read_table(path) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    path.write_text("a\tb\n1\t2\n\n3\n", encoding="utf8")
    with pytest.raises(CorruptFileError, match=r"line 4 of "):
        read_table(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "one.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError):
        write_table(path, [{"a": 1}, {"b": 2}])
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


CELLS = st.text(st.characters(exclude_characters="\t\n\r", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(CELLS, CELLS.filter(bool)), min_size=1, max_size=4))
def test_any_table_comes_back(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "one.tsv")
        rows = [{"first": one, "other": other} for one, other in rows]
        write_table(path, rows)
        assert read_table(path) == rows


def test_what_was_there_before_is_kept_beside(tmp_path):
    path, previous = tmp_path / "one.txt", tmp_path / "one.txt.previous"
    for content, before in (("first", None), ("second", "first"), ("third", "second")):
        with atomic_write(path, previous=previous) as file:
            file.write(content)
        assert path.read_text() == content and (previous.read_text() if before else None) == before
    assert len(list(tmp_path.iterdir())) == 2


POINTS = [(os, "fsync"), (Path, "unlink"), (Path, "hardlink_to"), (os, "replace")]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("place", "name"), POINTS, ids=lambda value: str(value)[:5])
def test_killed_at_any_step_of_a_write_there_is_a_whole_file(tmp_path, forked, place, name, when):
    """As by SIGKILL, in a child; what was there before is kept beside."""
    path, previous = tmp_path / "one.txt", tmp_path / "previous"
    path.write_text("old")

    def write_and_die():
        plain = getattr(place, name)

        def deadly(*args, **options):
            if when == "after":
                plain(*args, **options)
            os._exit(9)

        setattr(place, name, deadly)
        with atomic_write(path, previous=previous) as file:
            file.write("new")

    assert forked(write_and_die) == 9
    assert path.read_text() == ("new" if (name, when) == ("replace", "after") else "old")
    with atomic_write(path, previous=previous) as file:  # and the next write succeeds
        file.write("next")
    assert path.read_text() == "next" and previous.read_text() in ("old", "new")


def test_tensors_come_back(tmp_path):
    kept = {"weights": torch.randn(100), "words": ["a", "b"], "history": [{"epoch": 1, "loss": 0.5}]}
    torch.save(kept, tmp_path / "one.pt")
    read = read_tensors(tmp_path / "one.pt")
    assert torch.equal(read.pop("weights"), kept.pop("weights")) and read == kept


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_code_of_a_file_is_run(tmp_path):
    torch.save({"weights": Evil(tmp_path / "harm")}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil.pt is damaged: "):
        read_tensors(tmp_path / "evil.pt")
    assert not (tmp_path / "harm").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)  # what would have happened
    assert (tmp_path / "harm").exists()


def test_no_file_of_ours_is_loaded_with_its_code():
    """torch.load without weights_only=True, and pickle.load, are found nowhere outside the tests."""
    for path in [*environment.ROOT.glob("utils/**/*.py"), *environment.ROOT.glob("notebooks/*.ipynb")]:
        source = path.read_text("utf8")
        if "tests" not in path.parts:
            assert all("weights_only=True" in call[:80] for call in source.split("torch.load(")[1:]), path
            assert "pickle.load" not in source and "weights_only=False" not in source, path


def spoilt(whole):
    yield "empty", b""
    yield "a letter", b"x"
    yield "half", whole[: len(whole) // 2]
    yield "all but the end", whole[:-1]
    yield "text", b"no tensors here\n" * 100
    yield "a page", b"<!DOCTYPE html>"
    yield "zeros", bytes(len(whole))
    yield "a bit", whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
    yield "an empty zip", b"PK\x05\x06" + bytes(18)


def test_damaged_tensors_are_named(tmp_path):
    torch.save({"weights": torch.randn(1000)}, tmp_path / "one.pt")
    whole = (tmp_path / "one.pt").read_bytes()
    for kind, content in spoilt(whole):
        (tmp_path / "one.pt").write_bytes(content)
        with pytest.raises(CorruptFileError, match=r"one.pt is damaged: ."):
            pytest.fail(f"{kind} is read as {read_tensors(tmp_path / 'one.pt')}")
    with pytest.raises(FileNotFoundError, match="absent.pt"):
        read_tensors(tmp_path / "absent.pt")


def never():
    pytest.fail("it was kept, and is made again")


def test_what_is_kept_is_used_until_its_key_changes(tmp_path, capsys):
    path = tmp_path / "new" / "kept.pt"
    assert cached(path, "one", lambda: {"words": ["a"]}) == {"words": ["a"], "key": "one"}
    assert cached(path, "one", never) == {"words": ["a"], "key": "one"}
    assert cached(path, "two", lambda: {"words": ["b"]})["words"] == ["b"]
    assert cached(path, "two", never)["words"] == ["b"] and cached(path, "one", dict) == {"key": "one"}
    for other in ({"words": ["of something else"]}, ["no dict"], torch.ones(3)):
        torch.save(other, path)
        assert cached(path, "one", dict) == {"key": "one"}
    assert list(path.parent.iterdir()) == [path] and capsys.readouterr().out == ""


def test_what_is_kept_and_damaged_is_made_again(tmp_path, capsys):
    path = tmp_path / "kept.pt"
    cached(path, "key", lambda: {"words": [f"word{i}" for i in range(500)]})
    whole = path.read_bytes()
    for kind, content in [*spoilt(whole), ("a letter within", whole.replace(b"word250", b"wurd250"))]:
        path.write_bytes(content)
        assert cached(path, "key", lambda kind=kind: {"words": [kind]})["words"] == [kind]
        assert "kept.pt is damaged" in capsys.readouterr().out
        assert cached(path, "key", never)["words"] == [kind]
    path.unlink()
    path.mkdir()
    assert cached(path, "key", dict) == {"key": "key"}
    assert re.search("Is a directory|Permission denied", capsys.readouterr().out)  # the latter on Windows


@pytest.mark.parametrize("how", ["no folder", "a full disk"])
def test_what_cannot_be_kept_is_made_each_time(tmp_path, monkeypatch, capsys, how):
    def full(what, file):
        raise RuntimeError("unexpected pos 64 vs 0")  # as torch says it

    if how == "a full disk":
        monkeypatch.setattr(torch, "save", full)
    (tmp_path / "file").write_text("")
    path = tmp_path / ("file" if how == "no folder" else "") / "kept.pt"
    for content in "ab":
        assert cached(path, "key", lambda content=content: {"made": content})["made"] == content
        assert "kept.pt cannot be written (" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_interrupted_write_leaves_what_was_kept(tmp_path, monkeypatch):
    path = tmp_path / "kept.pt"
    cached(path, "one", lambda: {"words": ["old"]})

    def half(what, file):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch, "save", half)
        cached(path, "two", dict)
    assert cached(path, "one", never)["words"] == ["old"] and list(tmp_path.iterdir()) == [path]


def test_what_a_kill_left_of_a_write_is_swept_after_an_hour_and_nothing_else(tmp_path):
    cached(tmp_path / "a.pt", "key", dict)
    for name in ("a.pt.1.part", "a.pt.2.part", "b.pt.1.part", "a.pt.previous"):
        (tmp_path / name).write_text("")
        if name != "a.pt.2.part":
            os.utime(tmp_path / name, (0, time.time() - 3700))
    with suppress(OSError):  # Windows makes no link for an ordinary user
        os.symlink(tmp_path / "nowhere", tmp_path / "a.pt.3.part")  # listed, and gone when it is looked at
    with atomic_write(tmp_path / "b.pt") as file:
        file.write("whole")
    cached(tmp_path / "a.pt", "key", never)  # nothing is written, and yet it is swept
    left = {path.name for path in tmp_path.iterdir()}
    assert left - {"a.pt.3.part"} == {"a.pt.2.part", "a.pt", "a.pt.previous", "b.pt"}
    remove_stale_parts(tmp_path / "absent" / "a.pt")
