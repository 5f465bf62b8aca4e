"""IMDB's checks, on small made archives, damaged ones, and a server that answers badly."""

import gzip
import http.server
import io
import os
import random
import re
import sys
import tarfile
import threading
import time

import pytest

from utils import imdb

PER_CLASS = 5
BYTES = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss


@pytest.fixture
def files():
    """What an archive like IMDB's holds, with five reviews in each of the four folders: {name: bytes}."""
    made = {"aclImdb/README": b"not a review", "aclImdb/train/unsup/0_0.txt": b"no label"}
    for half in ("train", "test"):
        for name, star in (("neg", 2), ("pos", 9)):
            urls = ""
            for i in range(PER_CLASS):
                made[f"aclImdb/{half}/{name}/{i}_{star + i % 2}.txt"] = f"{half} {name} {i} naïve".encode()
                urls += f"http://www.imdb.com/title/tt{7 + i // 2:07}/usercomments\n"
            made[f"aclImdb/{half}/urls_{name}.txt"] = urls.encode()
    return made


def packed(path, files, *more):
    """Write an archive of `files`, and of `more`: (name, content or the type of what is no file)."""
    with tarfile.open(path, f"w:{path.suffix[1:].replace('tar', '')}") as tar:
        for name, what in [*files.items(), *more]:
            member = tarfile.TarInfo(name)
            if len(what) == 1:
                member.type, member.linkname = what, "/etc/passwd"
                tar.addfile(member)
            else:
                member.size = len(what)
                tar.addfile(member, io.BytesIO(what))
    return path


def right(files):
    """The fingerprint of the reviews in `files`."""
    reviews = {name.removeprefix("aclImdb/"): text for name, text in files.items()}
    return imdb.fingerprint({name: text for name, text in reviews.items() if "/neg/" in name or "/pos/" in name})


def test_a_sound_archive(files, tmp_path):
    halves = imdb.read(packed(tmp_path / "made.tar.gz", files), right(files))
    for half in ("train", "test"):
        assert halves[half] == {
            "texts": [f"{half} {name} {i} naïve" for name in ("neg", "pos") for i in range(PER_CLASS)],
            "labels": [0] * PER_CLASS + [1] * PER_CLASS,
            "films": [7, 7, 8, 8, 9] * 2,
            "stars": [2, 3, 2, 3, 2, 9, 10, 9, 10, 9],
        }
    assert [path.name for path in tmp_path.iterdir()] == ["made.tar.gz"]  # nothing is unpacked


def test_reviews_come_by_number_in_whatever_order_they_are_packed(files, tmp_path):
    files |= {f"aclImdb/test/neg/{i}_1.txt": b"one more" for i in (10, 9, 8, 7, 6, 5)}
    files["aclImdb/test/urls_neg.txt"] = b"".join(b"http://www.imdb.com/title/tt%07d/\n" % i for i in range(11))
    names = list(files)
    random.Random(0).shuffle(names)
    path = packed(tmp_path / "shuffled.tar", {name: files[name] for name in names})
    test = imdb.read(path, right(files))["test"]
    assert test["films"][:11] == list(range(11)) and test["texts"][4:6] == ["test neg 4 naïve", "one more"]
    assert test["stars"][:11] == [2, 3, 2, 3, 2, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("train/neg/3_3", None), ("test/pos/0_9", None), ("train/pos/2_9", "train/pos/2_3"),
        ("train/neg/4_2", "train/neg/9_2"), ("train/neg/0_2", "train/neg/00_2"),
        ("train/neg/0_2", "train/pos/5_2"), ("test/neg/0_2", "train/neg/5_2"),
        ("train/neg/0_2", "train/unsup/5_2"), (None, "train/neg/5_2"), (None, "train/pos/2_10"),
    ],
)  # fmt: skip
def test_a_review_missing_moved_renamed_or_one_too_many_is_found(files, tmp_path, old, new):
    sha256 = right(files)
    text = files.pop(f"aclImdb/{old}.txt") if old else b"one more"
    if new:
        files[f"aclImdb/{new}.txt"] = text
    with pytest.raises(
        imdb.ImdbDamaged, match=r"other.tar cannot be used: it holds (19|20|21) labelled reviews, which are not"
    ):
        imdb.read(packed(tmp_path / "other.tar", files), sha256)


@pytest.mark.parametrize("text", [b"", b"test pos 4 naive", b"test pos 4 na\xefve", "test pos 4 naïve ".encode()])
def test_a_letter_changed_is_found(files, tmp_path, text):
    sha256, path = right(files), packed(tmp_path / "edited.tar", files, ("aclImdb/test/pos/4_9.txt", text))
    with pytest.raises(
        imdb.ImdbDamaged, match="edited.tar cannot be used: it holds 20 labelled reviews, which are not"
    ):
        imdb.read(path, sha256)  # of two files with one name the last counts


def test_the_fingerprint_changes_with_a_name_and_with_a_place():
    texts = {"train/neg/0_2.txt": b"abc", "train/neg/1_2.txt": b"d"}
    others = (
        {"train/neg/0_2.txt": b"ab", "train/neg/1_2.txt": b"cd"},
        {"train/neg/0_3.txt": b"abc", "train/neg/1_2.txt": b"d"},
        {"train/neg/0_2.txt": b"abd", "train/neg/1_2.txt": b"d"},
        {"train/neg/0_2.txt": b"d", "train/neg/1_2.txt": b"abc"},
        {"train/neg/0_2.txt": b"abc"},
    )
    assert imdb.fingerprint(dict(reversed(texts.items()))) == imdb.fingerprint(texts)
    assert imdb.fingerprint(texts) not in map(imdb.fingerprint, others)


def test_films_missing_or_too_many_are_said(files, tmp_path):
    sha256, name = right(files), "aclImdb/test/urls_neg.txt"
    sound = files.pop(name)
    with pytest.raises(imdb.ImdbDamaged, match="test/urls_neg.txt names 0 films for 5 reviews"):
        imdb.read(packed(tmp_path / "films.tar", files), sha256)
    for content, count in (
        (2 * sound, 10), (sound.partition(b"\n")[2], 4),
        (sound.replace(b"tt0000009", b"nm0000009"), 4), (b"tt1\n" * 5, 0),
    ):  # fmt: skip
        with pytest.raises(imdb.ImdbDamaged, match=f"test/urls_neg.txt names {count} films for 5 reviews"):
            imdb.read(packed(tmp_path / "films.tar", files, (name, content)), sha256)


def test_an_archive_cut_short_is_refused(files, tmp_path):
    whole, cut = packed(tmp_path / "made.tar.gz", files).read_bytes(), tmp_path / "cut.tar.gz"
    for size in (10, len(whole) // 2, len(whole) * 3 // 4, len(whole) - 1):
        cut.write_bytes(whole[:size])
        with pytest.raises(imdb.ImdbDamaged, match=r"cut.tar.gz cannot be used: .*Get it again from https://"):
            imdb.read(cut, right(files))


KINDS = {"symbolic link": b"2", "hard link": b"1", "character device": b"3", "block device": b"4", "pipe": b"6"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_no_review(files, tmp_path, kind):
    sha256 = right(files)
    assert imdb.read(packed(tmp_path / "odd.tar", files, ("aclImdb/train/pos/5_9.txt", KINDS[kind])), sha256)
    del files["aclImdb/train/pos/4_9.txt"]
    with pytest.raises(imdb.ImdbDamaged, match="19 labelled reviews"):
        imdb.read(packed(tmp_path / "odd.tar", files, ("aclImdb/train/pos/4_9.txt", KINDS[kind])), sha256)


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt", "/tmp/evil.txt", "aclImdb/train/neg/../../../../evil.txt", "aclImdb/train/neg/7_2.txt~",
        "x/aclImdb/train/neg/8_2.txt", "aclImdb/train/neg/9_2.txt/inner", "aclImdb/train/neg/.DS_Store",
        "aclImdb/train/neg/x_2.txt",
    ],
)  # fmt: skip
def test_what_has_another_name_is_not_read_and_nothing_is_written(files, tmp_path, name):
    path = packed(tmp_path / "more.tar", files, (name, b"evil"))
    assert len(imdb.read(path, right(files))["train"]["texts"]) == 2 * PER_CLASS
    assert [path.name for path in tmp_path.iterdir()] == ["more.tar"] and not os.path.exists("/tmp/evil.txt")


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_one_flipped_bit_anywhere_in_an_archive_is_found_or_does_no_harm(files, tmp_path, suffix):
    """In a plain .tar a film's number may change unseen: it has no check sum for what a file holds."""
    refused, harmless = 0, 0
    sound, bad, sha256 = tmp_path / f"made.tar{suffix}", tmp_path / f"bad.tar{suffix}", right(files)
    halves, whole = imdb.read(packed(sound, files), sha256), sound.read_bytes()
    for place in range(3, len(whole), max(1, len(whole) // 200)):
        bad.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            found = imdb.read(bad, sha256)
        except imdb.ImdbDamaged as problem:
            assert f"bad.tar{suffix} cannot be used" in str(problem) and "Get it again from" in str(problem)
            refused += 1
        else:
            harmless += 1
            assert all(found[half]["texts"] == halves[half]["texts"] for half in halves)
            assert suffix == "" or found == halves
    assert refused > (20 if suffix == "" else 150) and refused + harmless >= 200


def test_gzips_check_sum_is_read(files, tmp_path):
    """Python's tar reader stops before it: without it, another film passes."""
    path, sha256 = packed(tmp_path / "made.tar.gz", files), right(files)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
    with pytest.raises(imdb.ImdbDamaged, match="made.tar.gz cannot be used: CRC check failed"):
        imdb.read(path, sha256)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("size", [-512, 2**62, 2**70])
def test_a_size_that_no_file_can_have_is_damage(files, tmp_path, kind, size):
    member = tarfile.TarInfo("aclImdb/train/neg/0_2.txt")
    member.type, member.size = kind, size
    path = packed(tmp_path / "odd.tar", files)
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + path.read_bytes())
    with pytest.raises(imdb.ImdbDamaged, match="odd.tar cannot be used: .*Get it again from"):
        imdb.read(path, right(files))


def test_names_for_names_without_end_are_damage(files, tmp_path):
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 0
    (tmp_path / "deep.tar").write_bytes(3000 * member.tobuf() + bytes(1024))
    with pytest.raises(imdb.ImdbDamaged, match="deep.tar cannot be used"):
        imdb.read(tmp_path / "deep.tar", right(files))


def test_a_date_that_no_file_can_have_does_no_harm(files, tmp_path):
    with tarfile.open(tmp_path / "late.tar", "w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(text), 2**70
            tar.addfile(member, io.BytesIO(text))
    assert imdb.read(tmp_path / "late.tar", right(files))


def test_damage_in_the_middle_of_a_long_text_is_named(files, tmp_path):
    """There tarfile passes on what zlib says; between two texts it says so in words of its own."""
    files["aclImdb/train/neg/0_2.txt"] = "".join(random.Random(0).choices("abcdefgh", k=400_000)).encode()
    path = packed(tmp_path / "bad.tar.gz", files)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + 1000 * b"\xff" + whole[middle + 1000 :])
    with pytest.raises(imdb.ImdbDamaged, match="bad.tar.gz cannot be used: Error -3 while decompressing"):
        imdb.read(path, right(files))


def test_an_archive_that_must_not_be_read_is_said(files, tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(tarfile, "open", forbidden)
    with pytest.raises(imdb.ImdbDamaged, match=r"any.tar cannot be used: .*Permission denied"):
        imdb.read(tmp_path / "any.tar")


def test_the_order_of_search(files, tmp_path, monkeypatch):
    """What was kept, else IMDB_ARCHIVE, else the network; and what is said when all three fail."""
    data, asked = tmp_path / "data", []

    class NoNetwork:
        def fetch(self, *args, **options):
            asked.append(args)
            raise OSError("no route")

    monkeypatch.setattr(imdb.pooch, "create", lambda *args, **options: NoNetwork())
    monkeypatch.delenv("IMDB_ARCHIVE", raising=False)
    with pytest.raises(
        imdb.ImdbUnavailable, match="(?s)no route.*utils data.*IMDB_ARCHIVE.*3. put aclImdb_v1.tar.gz into .*data"
    ):
        imdb.load(data)
    assert len(asked) == 1
    path = packed(tmp_path / "made.tar.gz", files)
    monkeypatch.setenv("IMDB_ARCHIVE", str(path))
    with pytest.raises(
        imdb.ImdbDamaged, match=r"made.tar.gz cannot be used: it holds 20 labelled reviews, which are not"
    ):
        imdb.load(data)
    assert not data.exists() or not list(data.iterdir())
    accepted(monkeypatch, files)
    train, test = imdb.load(data)
    assert train["texts"][0] == "train neg 0 naïve" and test["texts"][0] == "test neg 0 naïve"
    assert right(files) in train["key"] != test["key"] and [path.name for path in data.iterdir()] == ["imdb.pt"]
    path.unlink()
    assert imdb.load(data) == (train, test)
    with monkeypatch.context() as patch, pytest.raises(imdb.ImdbDamaged, match="there is no such file"):
        patch.setattr(imdb, "TEXTS_SHA256", "of other texts")  # what was kept are not these
        imdb.load(data)
    whole = (data / "imdb.pt").read_bytes()
    (data / "imdb.pt").write_bytes(whole[: len(whole) // 2])  # damaged, and no archive any more
    with pytest.raises(imdb.ImdbDamaged, match="there is no such file"):
        imdb.load(data)
    assert len(asked) == 1


def accepted(monkeypatch, files):
    """From here on `files` are what IMDB is."""
    plain, sha256 = imdb.read, right(files)
    monkeypatch.setattr(imdb, "TEXTS_SHA256", sha256)
    monkeypatch.setattr(imdb, "read", lambda archive: plain(archive, sha256))


def test_what_is_read_is_held_to_the_fingerprint_of_imdb(files, tmp_path):
    with pytest.raises(imdb.ImdbDamaged, match="which are not those of IMDB"):
        imdb.read(packed(tmp_path / "made.tar", files))
    assert len(imdb.TEXTS_SHA256) == 64


def test_where_nothing_can_be_kept_it_is_read_each_time(files, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IMDB_ARCHIVE", str(packed(tmp_path / "made.tar.gz", files)))
    accepted(monkeypatch, files)
    for _ in range(2):
        assert len(imdb.load(tmp_path / "file" / "data")[0]["texts"]) == 2 * PER_CLASS
        assert "imdb.pt cannot be written" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system makes no copy of a process")
def test_four_processes_at_once_all_get_it(files, tmp_path, monkeypatch):
    monkeypatch.setenv("IMDB_ARCHIVE", str(packed(tmp_path / "made.tar.gz", files)))
    accepted(monkeypatch, files)
    data, children = tmp_path / "data", []
    for _ in range(4):
        child = os.fork()
        if not child:
            try:
                os._exit(len(imdb.load(data)[0]["texts"]))
            except BaseException:
                os._exit(1)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [2 * PER_CLASS] * 4 and [path.name for path in data.iterdir()] == ["imdb.pt"]


BODY = b"an archive " * 1000


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on this machine; what is appended to `answers` is how it answers, one request after another."""
    answers = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            how = answers.pop(0)
            if how == 404:
                return self.send_error(how)
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write({"right": BODY, "wrong": BODY[::-1], "cut": BODY[:500]}[how])

        def log_message(self, *args):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(imdb, "URL", f"http://127.0.0.1:{running.server_port}/aclImdb_v1.tar.gz")
    monkeypatch.setattr(imdb, "SHA256", imdb.hashlib.sha256(BODY).hexdigest())
    monkeypatch.setattr(imdb.pooch.core.time, "sleep", lambda seconds: None)
    monkeypatch.delenv("IMDB_ARCHIVE", raising=False)
    yield answers
    running.shutdown()


def test_a_download_that_fails_is_tried_again(server, tmp_path):
    server += [404, "cut", "wrong", "right"]
    assert imdb.find_or_download(tmp_path / "data").read_bytes() == BODY and not server


@pytest.mark.parametrize(("answer", "said"), [(404, "404"), ("wrong", "hash"), ("cut", "IncompleteRead")])
def test_a_server_that_never_answers_well_leaves_nothing_and_is_quoted(server, tmp_path, answer, said):
    server += 4 * [answer]
    with pytest.raises(imdb.ImdbUnavailable, match=rf"(?s)downloaded: .*{said}.*Three ways"):
        imdb.find_or_download(tmp_path / "data")
    assert not server and not list((tmp_path / "data").iterdir())


def test_a_damaged_archive_without_a_network_is_called_damaged_not_absent(server, tmp_path, monkeypatch):
    (tmp_path / "aclImdb_v1.tar.gz").write_bytes(BODY[:100])
    with (
        monkeypatch.context() as patch,
        pytest.raises(imdb.ImdbDamaged, match="tar.gz is damaged or cut short.* Delete it"),
    ):
        patch.setattr(imdb, "URL", "http://127.0.0.1:9/aclImdb_v1.tar.gz")
        imdb.find_or_download(tmp_path)
    server += ["right"]  # and with one it is replaced
    assert imdb.find_or_download(tmp_path).read_bytes() == BODY


def test_a_folder_that_cannot_be_is_said(server, tmp_path):
    server += 4 * ["right"]
    (tmp_path / "file").write_text("")
    with pytest.raises(imdb.ImdbUnavailable, match=r"(?s)downloaded: .*(file|director).*Three ways"):
        imdb.find_or_download(tmp_path / "file" / "data")


@pytest.fixture
def measured(forked):
    """Reads an archive in a process of its own; gives the memory that it took, in MB, what is said, and the seconds."""
    resource = pytest.importorskip("resource")  # not on Windows

    def measure(archive, sha256):
        reader, writer = os.pipe()

        def read():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                imdb.read(archive, sha256)
                said = "read"
            except imdb.ImdbDamaged as problem:
                said = str(problem)
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * BYTES / 2**20
            os.write(writer, f"{more}|{said}".encode())

        began = time.monotonic()
        assert forked(read) == 0
        megabytes, _, said = os.read(reader, 10**6).decode().partition("|")
        return float(megabytes), said, time.monotonic() - began

    return measure


@pytest.mark.parametrize("name", ["aclImdb/train/neg/0_2.txt", "readme", None])
def test_a_bomb_is_refused_before_it_goes_off(files, tmp_path, monkeypatch, measured, name):
    """3 GB that were pressed to a thousandth, as a review, as something else, or behind the archive's end."""
    if name is None:
        monkeypatch.setattr(imdb, "MOST_BYTES", 30 * 10**6)
    with gzip.open(tmp_path / "bomb.tar.gz", "wb", 1) as file:
        if name:
            member = tarfile.TarInfo(name)
            member.size = 3 * 10**9
            file.write(member.tobuf())
        for _ in range(40):  # the rest is never read
            file.write(bytes(10**6))
    megabytes, said, seconds = measured(tmp_path / "bomb.tar.gz", right(files))
    assert "cannot be used: its contents exceed 1 GB" in said and megabytes < 50 and seconds < 20


def test_many_small_bombs_are_one(files, tmp_path, monkeypatch):
    monkeypatch.setattr(imdb, "MOST_BYTES", 10**5)
    for count, size in ((10, 10**4), (200, 0)):
        path = packed(tmp_path / "many.tar", files, *((f"notes{i}", bytes(size)) for i in range(count)))
        with pytest.raises(imdb.ImdbDamaged, match="contents exceed 1 GB"):
            imdb.read(path, right(files))


def tiny_members(path, files, thousands):
    """An archive of `files` and of so many thousand files of one letter."""
    header = tarfile.TarInfo("aclImdb/train/unsup/0_0.txt")
    header.size = 1
    packed(path, files)
    with tarfile.open(path) as tar:
        tar.getmembers()
        end = tar.offset
    with open(path, "r+b") as file:
        file.seek(end)
        for _ in range(thousands):
            file.write((header.tobuf() + b"x" + bytes(511)) * 1000)
        file.write(bytes(1024))
    return path


@pytest.mark.parametrize("thousands", [10, pytest.param(100, marks=pytest.mark.long)])
def test_tiny_members_take_time_and_memory_in_proportion(files, tmp_path, measured, thousands):
    megabytes, said, seconds = measured(tiny_members(tmp_path / "tiny.tar", files, thousands), right(files))
    assert said == "read" and megabytes < 50 + 2 * thousands and seconds < 10 + thousands


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
        imdb.read(tmp_path / name)


@pytest.mark.parametrize("what", ["", os.curdir, "no such file"])
def test_a_wrong_imdb_archive_is_named(tmp_path, monkeypatch, server, what):
    if not what:
        server.append("right")  # empty is as if it were not set
    monkeypatch.setenv("IMDB_ARCHIVE", what)
    if what:
        with pytest.raises(
            imdb.ImdbDamaged,
            match=re.escape(f"IMDB_ARCHIVE={os.path.abspath(what)}: there is no such file. Correct the variable"),
        ):
            imdb.find_or_download(tmp_path / "data")
    else:
        assert imdb.find_or_download(tmp_path / "data").read_bytes() == BODY
