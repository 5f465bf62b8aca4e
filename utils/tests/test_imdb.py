"""IMDB's checks, on small made trees and damaged archives."""

import gzip
import http.server
import io
import os
import random
import resource
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


@pytest.fixture
def right(tree, tmp_path):
    """The fingerprint of what the sound archive holds, which is accepted with it."""
    imdb.unpack(tmp_path / "made.tar.gz", tmp_path / "sound" / "aclImdb", PER_CLASS)
    right = imdb.fingerprint(tmp_path / "sound" / "aclImdb")
    imdb.unpack(tmp_path / "made.tar.gz", tmp_path / "again" / "aclImdb", PER_CLASS, right)
    return right


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


def test_one_flipped_bit_anywhere_in_an_archive_is_found_or_does_no_harm(tree, tmp_path, right):
    """Python's tar reader never looks at the check sum at gzip's end; the fingerprint of the texts does."""
    with tarfile.open(tmp_path / "made.tar", "w") as tar:
        tar.add(tree, "aclImdb")
    plain = (tmp_path / "made.tar").read_bytes()
    compressed = gzip.compress(plain, mtime=0)
    refused, harmless = 0, 0
    for name, whole in (("bad.tar", plain), ("bad.tar.gz", compressed)):
        for place in range(5, len(whole), max(1, len(whole) // 60)):
            (tmp_path / name).write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
            shutil.rmtree(tmp_path / "data", ignore_errors=True)
            try:
                imdb.unpack(tmp_path / name, tmp_path / "data" / "aclImdb", PER_CLASS, right)
            except imdb.ImdbDamaged:
                refused += 1
            else:
                harmless += 1
                assert imdb.fingerprint(tmp_path / "data" / "aclImdb") == right
    assert refused > 40 and harmless > 10


def test_a_letter_changed_is_found(tree, tmp_path, right):
    (tree / "test" / "pos" / "4_9.txt").write_text("test pos 4 naive", encoding="utf8")
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
    busy = tmp_path / "data" / "unpacking-busy"  # for an hour, and still at it
    (busy / "aclImdb" / "train" / "neg").mkdir(parents=True)
    for path in (busy, busy / "aclImdb", busy / "aclImdb" / "train"):
        os.utime(path, (long_ago, long_ago))
    unpacked(tmp_path / "made.tar.gz", tmp_path / "data")
    assert not old.exists() and young.exists() and busy.exists()


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
    answers, let_go = [], threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            how = answers.pop(0)
            if isinstance(how, int):
                return self.send_error(how)
            self.send_response(302 if how in ("moved", "round and round") else 200)
            if how in ("moved", "round and round"):
                self.send_header("Location", self.path)
                answers.extend(["round and round"] if how != "moved" else [])
            self.send_header("Content-Length", str(len(BODY) + {"too much promised": 9, "too little": -9}.get(how, 0)))
            self.end_headers()
            for part in {"wrong": [BODY[::-1]], "cut": [BODY[:500]], "stalled": [BODY[:500], None], "moved": [],
                         "slow": [BODY[i : i + 1000] for i in range(0, len(BODY), 1000)]}.get(how, [BODY]):  # fmt: skip
                if part is None or how == "slow":
                    let_go.wait(0.02 if part else 20)
                if part:
                    self.wfile.write(part)

        def log_message(self, *args):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    monkeypatch.setattr(imdb, "URL", f"http://127.0.0.1:{running.server_port}/aclImdb_v1.tar.gz")
    monkeypatch.setattr(imdb, "SHA256", imdb.hashlib.sha256(BODY).hexdigest())
    monkeypatch.setattr(imdb.pooch.core.time, "sleep", lambda seconds: None)
    monkeypatch.delenv("IMDB_ARCHIVE", raising=False)
    plain = imdb.pooch.HTTPDownloader

    def impatient(*, timeout, **options):
        assert 5 <= timeout <= 60  # as it is: a server that stalls is given up, one that is slow is not
        return plain(timeout=1.0, **options)

    monkeypatch.setattr(imdb.pooch, "HTTPDownloader", impatient)
    yield answers
    let_go.set()
    running.shutdown()


HICCUPS = [[], [500, 503], [500, 502, 500], ["cut", "wrong"], ["stalled"], ["moved"], [404, "moved"]]


@pytest.mark.parametrize("before", HICCUPS, ids=str)
def test_a_servers_hiccups_are_retried(server, tmp_path, before):
    server += [*before, "slow"]
    assert imdb.find_archive(tmp_path / "data").read_bytes() == BODY and not server


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (403, "403"), (404, "404"), (500, "500"), (503, "503"), ("wrong", "hash"), ("cut", "IncompleteRead"),
        ("stalled", "timed out"), ("too much promised", "IncompleteRead"), ("too little", "hash"),
    ],
)  # fmt: skip
def test_a_server_that_never_answers_well_leaves_nothing_and_is_quoted(server, tmp_path, answer, said):
    server += 4 * [answer]
    with pytest.raises(imdb.ImdbUnavailable, match=rf"(?s)downloaded: .*{said}.*Three ways"):
        imdb.find_archive(tmp_path / "data")
    assert not server and not list((tmp_path / "data").iterdir())


def test_a_server_that_sends_round_and_round_is_given_up(server, tmp_path):
    server += ["round and round"]
    with pytest.raises(imdb.ImdbUnavailable, match=r"(?s)downloaded: Exceeded 30 redirects.*Three ways"):
        imdb.find_archive(tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_that_is_set_wrongly_is_named(server, tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(imdb.ImdbUnavailable, match=r"(?s)downloaded: .*(proxy|Proxy|port=9).*Three ways"):
        imdb.find_archive(tmp_path / "data")


def test_a_machine_that_is_not_there_is_said(server, tmp_path, monkeypatch):
    for address, said in (
        ("http://127.0.0.1:9/x.tar.gz", "port=9"),
        ("http://nowhere.invalid/x.gz", "nowhere.invalid"),
    ):
        monkeypatch.setattr(imdb, "URL", address)
        with pytest.raises(imdb.ImdbUnavailable, match=rf"(?s)downloaded: .*{said}.*Three ways"):
            imdb.find_archive(tmp_path / "data")


def forked(task):
    """The exit code of a child that does `task`: 0, 1 if it raises, or what it ends itself with."""
    child = os.fork()
    if not child:
        try:
            task()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_disk_that_is_full_is_said_and_leaves_nothing(server, tmp_path):
    """Here a limit on the size of files stands for the end of the disk."""
    server += 4 * ["right"]

    def download():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        with pytest.raises(imdb.ImdbUnavailable, match=r"(?s)downloaded: .*File too large.*Three ways"):
            imdb.find_archive(tmp_path / "data")

    assert forked(download) == 0 and not list((tmp_path / "data").iterdir())


def test_a_folder_that_cannot_be_is_said(server, tmp_path):
    server += 4 * ["right"]
    (tmp_path / "file").write_text("")
    with pytest.raises(imdb.ImdbUnavailable, match=r"(?s)downloaded: .*(file|director).*Three ways"):
        imdb.find_archive(tmp_path / "file" / "data")


@pytest.mark.parametrize("point", range(1, 4 * PER_CLASS + 5))
def test_killed_at_any_file_the_next_start_is_whole(tree, tmp_path, monkeypatch, point):
    """As by SIGKILL: nothing is cleaned up by whom it hits, all by the next that comes an hour later."""
    data, plain, calls = tmp_path / "data", tarfile.TarFile.extract, []

    def extract(*args, **options):
        calls.append(1)
        if len(calls) == point:
            os._exit(9)
        return plain(*args, **options)

    def killed():
        tarfile.TarFile.extract = extract
        unpacked(tmp_path / "made.tar.gz", data)

    assert forked(killed) == 9
    [left] = data.iterdir()
    assert left.name.startswith("unpacking-")
    for path in (left, *left.rglob("*")):
        os.utime(path, (1, 1))
    assert len(unpacked(tmp_path / "made.tar.gz", data)) == 4 * PER_CLASS + 4
    assert [path.name for path in data.iterdir()] == ["aclImdb"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_the_last_step_it_is_there_or_not(tree, tmp_path, when):
    data = tmp_path / "data"

    def killed():
        plain = os.replace

        def replace(*args):
            if when == "after":
                plain(*args)
            os._exit(9)

        os.replace = replace
        unpacked(tmp_path / "made.tar.gz", data)

    assert forked(killed) == 9
    assert (data / "aclImdb").exists() == (when == "after")
    if when == "before":
        unpacked(tmp_path / "made.tar.gz", data)
    assert len(imdb.read_tree(data / "aclImdb" / "test", PER_CLASS)["texts"]) == 2 * PER_CLASS


def test_a_folder_that_another_process_deletes_while_it_is_looked_at(tmp_path):
    (tmp_path / "unpacking-gone").symlink_to(tmp_path / "nowhere")  # in the list, and not there when asked for
    (tmp_path / "unpacking-old").mkdir()
    os.utime(tmp_path / "unpacking-old", (0, 0))
    imdb.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["unpacking-gone"]


def test_four_processes_at_once_all_get_it(tree, tmp_path, right):
    data, children = tmp_path / "data", []
    for _ in range(4):
        child = os.fork()
        if not child:
            try:
                imdb.unpack(tmp_path / "made.tar.gz", data / "aclImdb", PER_CLASS, right)
                os._exit(len(imdb.read_tree(data / "aclImdb" / "train", PER_CLASS)["texts"]))
            except BaseException:
                os._exit(1)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [2 * PER_CLASS] * 4 and [path.name for path in data.iterdir()] == ["aclImdb"]


def packed_with(tree, path, *members):
    """A .tar of `tree` with these members behind it: (name, type or content)."""
    with tarfile.open(path, "w") as tar:
        tar.add(tree, "aclImdb")
        for name, what in members:
            member = tarfile.TarInfo(name)
            if isinstance(what, bytes) and len(what) != 1:
                member.size = len(what)
                tar.addfile(member, io.BytesIO(what))
                continue
            member.type, member.linkname = what, "/etc/passwd"
            tar.addfile(member)
    return path


KINDS = {"symbolic link": b"2", "hard link": b"1", "character device": b"3", "block device": b"4", "pipe": b"6"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_never_made(tree, tmp_path, kind):
    (tree / "train" / "pos" / "4_9.txt").unlink()
    path = packed_with(tree, tmp_path / "odd.tar", ("aclImdb/train/pos/4_9.txt", KINDS[kind]))
    with pytest.raises(imdb.ImdbDamaged, match=r"train/pos holds 4 reviews, not 5 .*Get it again"):
        unpacked(path, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
    outside = packed_with(tree, tmp_path / "outside.tar", ("notes", KINDS[kind]))
    with pytest.raises(imdb.ImdbDamaged, match="pos holds 4"):
        unpacked(outside, tmp_path / "data")


def test_only_whole_names_count(tree, tmp_path):
    names = ["aclImdb/train/neg/7_2.txt~", "x/aclImdb/train/neg/8_2.txt", "aclImdb/train/neg/9_2.txt/inner"]
    path = packed_with(tree, tmp_path / "more.tar", *((name, b"more than that") for name in names))
    assert len(unpacked(path, tmp_path / "data")) == 4 * PER_CLASS + 4
    assert len(list((tmp_path / "data").rglob("*"))) == 4 * PER_CLASS + 4 + 7  # and no other file


def test_the_test_half_is_checked_too(tree, tmp_path):
    (tree / "test" / "pos" / "0_9.txt").unlink()
    with pytest.raises(imdb.ImdbDamaged, match="test/pos holds 4 reviews"):
        unpacked(packed_with(tree, tmp_path / "half.tar"), tmp_path / "data")


def measured(archive, folder):
    """What is said of an archive by a process of its own, and the memory that it took, in MB."""
    ends = {}
    reader, writer = os.pipe()

    def unpack():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            unpacked(archive, folder)
            said = "unpacked"
        except imdb.ImdbDamaged as problem:
            said = str(problem)
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        os.write(writer, f"{more}|{said}".encode())

    began = time.monotonic()
    assert forked(unpack) == 0
    ends["megabytes"], _, ends["said"] = os.read(reader, 10**6).decode().partition("|")
    return float(ends["megabytes"]), ends["said"], time.monotonic() - began


@pytest.mark.parametrize("inside", [True, False])
def test_a_bomb_is_refused_before_it_goes_off(tree, tmp_path, inside):
    """3 GB that were pressed to a thousandth, as a review or as something else."""
    member = tarfile.TarInfo("aclImdb/train/neg/0_2.txt" if inside else "readme")
    member.size = 3 * 10**9
    with gzip.open(tmp_path / "bomb.tar.gz", "wb", 1) as file:
        file.write(member.tobuf())
        for _ in range(40):  # the rest is never read
            file.write(bytes(10**6))
    megabytes, said, seconds = measured(tmp_path / "bomb.tar.gz", tmp_path / "data")
    assert "not safe, for it grows beyond 1 GB" in said and megabytes < 50 and seconds < 20
    assert list((tmp_path / "data").iterdir()) == []


def test_many_small_bombs_are_one(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(imdb, "MOST_BYTES", 10**5)
    path = packed_with(tree, tmp_path / "many.tar", *((f"notes{i}", bytes(10**4)) for i in range(10)))
    with pytest.raises(imdb.ImdbDamaged, match="grows beyond 1 GB"):
        unpacked(path, tmp_path / "data")


def tiny_members(tree, path, thousands):
    """An archive of `tree` and of so many thousand files of one letter."""
    header = tarfile.TarInfo("aclImdb/train/unsup/0_0.txt")
    header.size = 1
    with tarfile.open(path, "w") as tar:
        tar.add(tree, "aclImdb")
        end = tar.offset
    with open(path, "r+b") as file:
        file.seek(end)
        for _ in range(thousands):
            file.write((header.tobuf() + b"x" + bytes(511)) * 1000)
        file.write(bytes(1024))
    return path


@pytest.mark.parametrize("thousands", [10, pytest.param(100, marks=pytest.mark.long)])
def test_tiny_members_without_number_take_bounded_time_and_memory(tree, tmp_path, thousands):
    megabytes, said, seconds = measured(tiny_members(tree, tmp_path / "tiny.tar", thousands), tmp_path / "data")
    assert said == "unpacked" and megabytes < 50 + 2 * thousands and seconds < 10 + thousands


@pytest.mark.parametrize("how", ["xz", "gz"])
def test_flipped_bits_in_either_compression(tree, tmp_path, right, how):
    found = 0
    with tarfile.open(tmp_path / f"made.tar.{how}", f"w:{how}") as tar:
        tar.add(tree, "aclImdb")
    whole, bad = (tmp_path / f"made.tar.{how}").read_bytes(), tmp_path / f"bad.tar.{how}"
    for place in range(3, len(whole), len(whole) // 20):
        bad.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        try:
            imdb.unpack(bad, tmp_path / "data" / "aclImdb", PER_CLASS, right)
        except imdb.ImdbDamaged as problem:
            assert f"bad.tar.{how} cannot be used" in str(problem) and "Get it again from" in str(problem)
            found += 1
        else:
            assert imdb.fingerprint(tmp_path / "data" / "aclImdb") == right
    assert found >= 15


def test_a_date_that_no_file_can_have_is_damage(tree, tmp_path):
    def late(member):
        member.mtime = 2**70
        return member

    with tarfile.open(tmp_path / "late.tar", "w") as tar:
        tar.add(tree, "aclImdb", filter=late)
    with pytest.raises(imdb.ImdbDamaged, match="late.tar cannot be used: .*Get it again"):
        unpacked(tmp_path / "late.tar", tmp_path / "data")


def test_damage_in_the_middle_of_a_long_text_is_named(tree, tmp_path):
    """There tarfile passes on what zlib says; between two texts it says so in words of its own."""
    luck = random.Random(0)
    (tree / "train" / "neg" / "0_2.txt").write_text("".join(luck.choices("abcdefgh", k=400_000)))
    with tarfile.open(tmp_path / "made.tar.gz", "w:gz") as tar:
        tar.add(tree, "aclImdb")
    whole = (tmp_path / "made.tar.gz").read_bytes()
    middle = len(whole) // 2
    (tmp_path / "bad.tar.gz").write_bytes(whole[:middle] + 1000 * b"\xff" + whole[middle + 1000 :])
    with pytest.raises(imdb.ImdbDamaged, match="bad.tar.gz cannot be used: Error -3 while decompressing"):
        unpacked(tmp_path / "bad.tar.gz", tmp_path / "data")


NO_ARCHIVE = {
    "nothing": b"",
    "one byte": b"x",
    "a page that says no": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "zeros": bytes(10240),
    "a gzip of nothing": gzip.compress(b""),
    "a gzip of text": gzip.compress(b"no archive " * 1000),
    "a gzip header alone": b"\x1f\x8b\x08\x00" + bytes(6),
    "an xz header alone": b"\xfd7zXZ\x00\x00\x04",
    "a zip": b"PK\x05\x06" + bytes(18),
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:c40f74a1\nsize 84125825\n",
}


@pytest.mark.parametrize("kind", NO_ARCHIVE)
@pytest.mark.parametrize("name", ["aclImdb_v1.tar.gz", "labelled.tar.xz", "plain.tar"])
def test_what_is_no_archive_is_named_with_its_remedy(tmp_path, kind, name):
    (tmp_path / name).write_bytes(NO_ARCHIVE[kind])
    with pytest.raises(imdb.ImdbDamaged, match=rf"{name} cannot be used: .+\. Get it again from https://"):
        unpacked(tmp_path / name, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("what", ["", "/", "/dev/null", "no such file", "/dev/null/x"])
def test_a_wrong_imdb_archive_is_named(tmp_path, monkeypatch, server, what):
    if not what:
        server.append("right")  # empty is as if it were not set
    monkeypatch.setenv("IMDB_ARCHIVE", what)
    if what:
        with pytest.raises(
            imdb.ImdbDamaged, match=rf"IMDB_ARCHIVE={what}: there is no such file. Correct the variable"
        ):
            imdb.find_archive(tmp_path / "data")
    else:
        assert imdb.find_archive(tmp_path / "data").read_bytes() == BODY


def test_the_key_changes_with_the_size_alone(tree):
    path = tree / "train" / "neg" / "0_2.txt"
    then, key = path.stat().st_mtime_ns, imdb.read_tree(tree / "train", PER_CLASS)["key"]
    path.write_text("longer than it was before")
    os.utime(path, ns=(then, then))
    assert imdb.read_tree(tree / "train", PER_CLASS)["key"] != key


def test_the_fingerprint_changes_with_a_name_and_with_a_place(tree):
    right = imdb.fingerprint(tree)
    first, second = (tree / "train" / "neg" / f"{i}_2.txt" for i in (0, 1))
    first.rename(tree / "train" / "neg" / "0_3.txt")
    assert imdb.fingerprint(tree) != right
    (tree / "train" / "neg" / "0_3.txt").rename(first)
    assert imdb.fingerprint(tree) == right
    sound = first.read_bytes()
    first.write_bytes(sound.replace(b"neg", b"peg"))  # of the same length
    assert imdb.fingerprint(tree) != right
    first.write_bytes(sound)
    second.write_text(first.read_text("utf8")[-1:] + second.read_text("utf8"), "utf8")
    first.write_text(first.read_text("utf8")[:-1], "utf8")
    assert imdb.fingerprint(tree) != right


def test_more_damage_to_a_tree_is_refused(tree):
    half, sound = tree / "train", (tree / "train" / "urls_neg.txt").read_text()
    for text, said in (
        (sound * 2, "urls_neg.txt names 10 films, not 5"),
        ("".join(sound.splitlines(True)[1:]), "urls_neg.txt names 4 films, not 5"),
        (sound.replace("tt0000009", "nm0000009"), "line 5 of train/urls_neg.txt names no film"),
        ("", "names 0 films"),
    ):
        (half / "urls_neg.txt").write_text(text)
        with pytest.raises(ValueError, match=said):
            imdb.read_tree(half, PER_CLASS)
    (half / "urls_neg.txt").write_text(sound)
    for stars in (0, 5, 6, 7, 10):
        (half / "neg" / "2_2.txt").rename(half / "neg" / f"2_{stars}.txt")
        with pytest.raises(ValueError, match=rf"neg/2_{stars}.txt has {stars} stars"):
            imdb.read_tree(half, PER_CLASS)
        (half / "neg" / f"2_{stars}.txt").rename(half / "neg" / "2_2.txt")
    for name in ("2.txt", "x_2.txt", "2_2.TXT", ".DS_Store", "2_2.txt.part", "-2_2.txt"):
        (half / "neg" / name).write_text("x")
        with pytest.raises(ValueError, match=r"is not called <id>_<stars>.txt"):
            imdb.read_tree(half, PER_CLASS)
        (half / "neg" / name).unlink()
    assert imdb.read_tree(half, PER_CLASS)["stars"][:2] == [2, 2]


def test_what_is_unpacked_is_held_to_the_fingerprint_of_imdb(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(imdb, "unpack", lambda archive, tree, sha256=None: asked.append((tree, sha256)))
    monkeypatch.setattr(imdb, "find_archive", lambda folder: folder / "any.tar.gz")
    with pytest.raises(imdb.ImdbDamaged, match="is not the IMDB set"):
        imdb.load(tmp_path)
    assert asked == [(tmp_path / "aclImdb", imdb.TEXTS_SHA256)] and len(imdb.TEXTS_SHA256) == 64
