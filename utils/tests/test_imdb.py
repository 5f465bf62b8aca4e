"""IMDB's checks, on small made trees and damaged archives."""

import gzip
import http.server
import io
import os
import shutil
import tarfile
import threading
import time

import pytest

from utils import imdb

PER_CLASS = 5


@pytest.fixture
def tree(tmp_path):
    """A tree like IMDB's with five reviews in each of the four folders, and beside it an archive of it."""
    root = tmp_path / "made" / "aclImdb"
    for half in ("train", "test"):
        for name, star in (("neg", 2), ("pos", 9)):
            (root / half / name).mkdir(parents=True)
            for i in range(PER_CLASS):
                (root / half / name / f"{i}_{star}.txt").write_text(f"{half} {name} {i} naïve", encoding="utf8")
            films = [f"http://www.imdb.com/title/tt{7 + i // 2:07}/usercomments\n" for i in range(PER_CLASS)]
            (root / half / f"urls_{name}.txt").write_text("".join(films))
        (root / half / "unsup").mkdir()
        (root / half / "unsup" / "0_0.txt").write_text("no label")
    with tarfile.open(tmp_path / "made.tar.gz", "w:gz") as tar:
        tar.add(root, "aclImdb")
    return root


def unpacked(archive, folder):
    imdb.unpack(archive, folder / "aclImdb", PER_CLASS)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.txt"))


def test_a_sound_tree(tree):
    reviews = imdb.read_tree(tree / "train", PER_CLASS)
    assert reviews["labels"] == [0] * PER_CLASS + [1] * PER_CLASS
    assert reviews["stars"] == [2] * PER_CLASS + [9] * PER_CLASS
    assert reviews["films"] == [7, 7, 8, 8, 9] * 2
    assert list(reviews["texts"])[6] == reviews["texts"][6] == "train pos 1 naïve"
    assert len(reviews["texts"]) == 2 * PER_CLASS


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda half: (half / "neg" / "3_2.txt").unlink(), "neg holds 4 reviews, not 5"),
        (lambda half: (half / "neg" / "5_2.txt").write_text("one more"), "neg holds 6 reviews"),
        (lambda half: (half / "neg" / "3_2.txt").rename(half / "neg" / "9_2.txt"), "neg holds 5 reviews"),
        (lambda half: (half / "pos" / "2_9.txt").write_text(""), "pos/2_9.txt is empty"),
        (lambda half: (half / "pos" / "2_9.txt").rename(half / "pos" / "2_3.txt"), "pos/2_3.txt has 3 stars"),
        (lambda half: (half / "pos" / "2_9.txt").rename(half / "pos" / "2_11.txt"), "pos/2_11.txt has 11 stars"),
        (lambda half: (half / "pos" / "2_10.txt").write_text("one more"), "pos holds two reviews with the number 2"),
        (lambda half: (half / "pos" / "notes.md").write_text("x"), "is not called <id>_<stars>.txt"),
        (lambda half: shutil.rmtree(half / "pos"), "pos holds 0 reviews"),
        (lambda half: (half / "urls_pos.txt").unlink(), "names 0 films"),
        (lambda half: (half / "urls_pos.txt").write_text("tt1\n" * PER_CLASS), "line 1 of train/urls_pos.txt"),
    ],
)
def test_a_damaged_tree_is_refused(tree, damage, message):
    damage(tree / "train")
    with pytest.raises(ValueError, match=message):
        imdb.read_tree(tree / "train", PER_CLASS)


def test_the_key_changes_with_the_texts(tree):
    keys = {imdb.read_tree(tree / "train", PER_CLASS)["key"] for _ in range(2)}
    assert len(keys) == 1
    (tree / "train" / "neg" / "0_2.txt").write_text("another text")
    assert imdb.read_tree(tree / "train", PER_CLASS)["key"] not in keys


def test_unpack_takes_labelled_reviews_and_nothing_else(tree, tmp_path):
    files = unpacked(tmp_path / "made.tar.gz", tmp_path / "data")
    assert len(files) == 4 * PER_CLASS + 4 and not any("unsup" in name for name in files)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["aclImdb"]


def test_an_archive_cut_short_leaves_nothing(tree, tmp_path):
    whole = (tmp_path / "made.tar.gz").read_bytes()
    for size in (10, len(whole) // 2, len(whole) * 3 // 4):
        (tmp_path / "cut.tar.gz").write_bytes(whole[:size])
        with pytest.raises(imdb.ImdbDamaged, match=r"cut.tar.gz cannot be used"):
            unpacked(tmp_path / "cut.tar.gz", tmp_path / "data")
        assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("name", ["../evil.txt", "aclImdb/train/neg/../../../../evil.txt", "/tmp/evil.txt"])
def test_an_archive_that_reaches_outside_is_refused(tree, tmp_path, name):
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.add(tree, "aclImdb")
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(imdb.ImdbDamaged, match="it is not safe"):
        unpacked(tmp_path / "evil.tar", tmp_path / "data")
    assert not list(tmp_path.rglob("evil.txt")) and list((tmp_path / "data").iterdir()) == []


def test_an_archive_with_a_link_or_a_class_missing_is_refused(tree, tmp_path):
    (tree / "train" / "neg" / "0_2.txt").unlink()
    (tree / "train" / "neg" / "0_2.txt").symlink_to("/etc/hostname")
    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        tar.add(tree, "aclImdb")
    with pytest.raises(imdb.ImdbDamaged, match="neg holds 4 reviews"):
        unpacked(tmp_path / "link.tar", tmp_path / "data")
    shutil.rmtree(tree / "test" / "pos")
    with tarfile.open(tmp_path / "class.tar", "w") as tar:
        tar.add(tree, "aclImdb", filter=lambda member: None if member.issym() else member)
    with pytest.raises(imdb.ImdbDamaged, match="class.tar cannot be used: .*neg holds 4"):
        unpacked(tmp_path / "class.tar", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_the_order_of_search(tree, tmp_path, monkeypatch):
    """The tree, else IMDB_ARCHIVE, else the network; and what is said when all three fail."""
    asked = []

    class NoNetwork:
        def fetch(self, *args, **options):
            asked.append(args)
            raise OSError("no route")

    monkeypatch.setattr(imdb.pooch, "create", lambda *args, **options: NoNetwork())
    monkeypatch.delenv("IMDB_ARCHIVE", raising=False)
    with pytest.raises(imdb.ImdbUnavailable, match="(?s)no route.*utils data.*IMDB_ARCHIVE.*unpack"):
        imdb.load(tmp_path / "data")
    assert len(asked) == 1
    monkeypatch.setenv("IMDB_ARCHIVE", str(tmp_path / "missing.tar.gz"))
    with pytest.raises(imdb.ImdbDamaged, match="there is no such file"):
        imdb.load(tmp_path / "data")
    monkeypatch.setenv("IMDB_ARCHIVE", str(tmp_path / "made.tar.gz"))
    with pytest.raises(imdb.ImdbDamaged, match=r"made.tar.gz.*neg holds 5 reviews, not 12500"):  # found; too small
        imdb.load(tmp_path / "data")
    shutil.copytree(tree, tmp_path / "data" / "aclImdb")
    monkeypatch.setenv("IMDB_ARCHIVE", "/nowhere")
    with pytest.raises(imdb.ImdbDamaged, match=r"aclImdb.*neg holds 5 reviews, not 12500"):  # the tree comes first
        imdb.load(tmp_path / "data")
    assert len(asked) == 1


def test_a_review_that_is_no_utf8_is_named(tree):
    (tree / "train" / "neg" / "3_2.txt").write_bytes(b"caf\xe9")
    texts = imdb.read_tree(tree / "train", PER_CLASS)["texts"]
    assert texts[2]
    with pytest.raises(imdb.ImdbDamaged, match=r"neg/3_2.txt is no text in UTF-8"):
        list(texts)


def test_one_flipped_bit_anywhere_in_an_archive_is_found_or_does_no_harm(tree, tmp_path):
    """Python's tar reader never looks at the check sum at gzip's end; the fingerprint of the texts does."""
    right = imdb.fingerprint(tree)  # of reviews alone, what else the archive holds may differ
    with tarfile.open(tmp_path / "made.tar", "w") as tar:
        tar.add(tree, "aclImdb")
    plain = (tmp_path / "made.tar").read_bytes()
    compressed = gzip.compress(plain, mtime=0)
    refused = 0
    for name, whole in (("bad.tar", plain), ("bad.tar.gz", compressed)):
        for place in range(5, len(whole), max(1, len(whole) // 60)):
            (tmp_path / name).write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
            shutil.rmtree(tmp_path / "data", ignore_errors=True)
            try:
                imdb.unpack(tmp_path / name, tmp_path / "data" / "aclImdb", PER_CLASS, right)
            except imdb.ImdbDamaged:
                refused += 1
            else:
                assert imdb.fingerprint(tmp_path / "data" / "aclImdb") == right
    assert refused > 40


def test_a_letter_changed_is_found(tree, tmp_path):
    right = imdb.fingerprint(tree)
    (tree / "test" / "pos" / "4_9.txt").write_text("test pos 4 naive", encoding="utf8")
    assert imdb.fingerprint(tree) != right
    with pytest.raises(imdb.ImdbDamaged, match="differs from IMDB's"):
        with tarfile.open(tmp_path / "edited.tar", "w") as tar:
            tar.add(tree, "aclImdb")
        imdb.unpack(tmp_path / "edited.tar", tmp_path / "data" / "aclImdb", PER_CLASS, right)


def test_two_processes_at_once_both_get_it(tree, tmp_path, monkeypatch):
    """The slower one finds the tree there when it is done, and uses it."""
    plain, target = imdb.extract, tmp_path / "data" / "aclImdb"

    def overtaken(*args):
        plain(*args)
        shutil.copytree(tree, target)

    monkeypatch.setattr(imdb, "extract", overtaken)
    assert len(unpacked(tmp_path / "made.tar.gz", tmp_path / "data")) > 4 * PER_CLASS
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["aclImdb"]


def test_what_a_kill_left_is_swept_after_an_hour(tree, tmp_path):
    old, young = (tmp_path / "data" / f"unpacking-{age}" for age in ("old", "young"))
    for left in (old, young):
        (left / "aclImdb" / "train").mkdir(parents=True)
    long_ago = time.time() - 4000
    for path in (old / "aclImdb" / "train", old / "aclImdb", old):
        os.utime(path, (long_ago, long_ago))
    unpacked(tmp_path / "made.tar.gz", tmp_path / "data")
    assert not old.exists() and young.exists()


def test_no_room_and_no_right_to_write_is_said(tree, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(imdb.ImdbUnavailable, match=r"(?s)cannot be unpacked into .*file/data.*300 MB"):
        unpacked(tmp_path / "made.tar.gz", tmp_path / "file" / "data")

    def full(self, *args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extract", full)
    with pytest.raises(imdb.ImdbUnavailable, match=r"No space left on device.*make room"):
        unpacked(tmp_path / "made.tar.gz", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


BODY = b"an archive " * 1000


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on this machine; what is appended to `answers` is how it answers, one request after another."""
    answers = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            how = answers.pop(0)
            if isinstance(how, int):
                return self.send_error(how)
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write({"right": BODY, "wrong": BODY[::-1], "cut": BODY[:500]}[how])

        def log_message(self, *args):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    monkeypatch.setattr(imdb, "URL", f"http://127.0.0.1:{running.server_port}/aclImdb_v1.tar.gz")
    monkeypatch.setattr(imdb, "SHA256", imdb.hashlib.sha256(BODY).hexdigest())
    monkeypatch.setattr(imdb.pooch.core.time, "sleep", lambda seconds: None)
    monkeypatch.delenv("IMDB_ARCHIVE", raising=False)
    yield answers
    running.shutdown()


@pytest.mark.parametrize("before", [[], [500, 503], ["cut", "wrong"]], ids=str)
def test_a_servers_hiccups_are_retried(server, tmp_path, before):
    server += [*before, "right"]
    assert imdb.find_archive(tmp_path / "data").read_bytes() == BODY and not server


@pytest.mark.parametrize(("answer", "said"), [(404, "404"), (500, "500"), ("wrong", "hash"), ("cut", "IncompleteRead")])
def test_a_server_that_never_answers_well_leaves_nothing_and_is_quoted(server, tmp_path, answer, said):
    server += 3 * [answer]
    with pytest.raises(imdb.ImdbUnavailable, match=rf"(?s)downloaded: .*{said}.*Three ways"):
        imdb.find_archive(tmp_path / "data")
    assert not server and not list((tmp_path / "data").iterdir())
