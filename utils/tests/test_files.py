"""Tables come back as they were written, and a write that fails leaves the old file."""

import pytest

from utils.files import read_table, write_table, written_atomically


def test_a_table_comes_back(tmp_path):
    path = tmp_path / "one.tsv"
    rows = [{"name": 'a "quoted" name, with a comma', "value": "0.5"}, {"name": "è", "value": ""}]
    write_table(path, rows)
    assert read_table(path) == rows and path.read_bytes().count(b"\n") == 3 and b"\r" not in path.read_bytes()
    assert read_table(tmp_path / "absent.tsv") == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "one.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), written_atomically(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError):
        write_table(path, [{"a": 1}, {"b": 2}])
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
