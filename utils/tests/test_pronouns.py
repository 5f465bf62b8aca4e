"""The grammar writes the stored file; its sentences are what notebook 09 says of them."""

import re
from collections import Counter, defaultdict

import pytest

from data import write_pronouns as grammar
from utils.datasets import DATA
from utils.files import read_table, write_table


@pytest.fixture(scope="module")
def rows():
    """The stored rows, as dicts by column."""
    return read_table(DATA / "pronouns.tsv")


@pytest.fixture(scope="module")
def parts(rows):
    return {split: [row for row in rows if row["split"] == split] for split in grammar.PAIRS}


def test_the_grammar_writes_the_stored_file(tmp_path):
    path = tmp_path / "pronouns.tsv"
    write_table(path, grammar.pronouns())
    assert path.read_bytes() == (DATA / path.name).read_bytes(), f"{path.name}: {grammar.__doc__}"


def test_counts(rows, parts):
    assert {split: len(some) for split, some in parts.items()} == {"train": 2400, "test": 528}
    assert len({row["frame"] for row in rows}) == 22
    assert len({row["sentence"] for row in rows}) == len(rows)


def test_two_sentences_of_a_pair_differ_in_the_adjective_and_in_what_is_meant(rows):
    for one, other in zip(rows[::2], rows[1::2]):
        assert [one["meant"], other["meant"]] == [one["first"], one["second"]]
        *beginning, adjective = one["sentence"].split()
        *same, another = other["sentence"].split()
        assert beginning == same and adjective != another
        assert all(one[column] == other[column] for column in ("split", "frame", "first", "second"))


def test_nouns_of_a_test_sentence_never_stand_together_in_training(parts):
    couples = {split: {frozenset((row["first"], row["second"])) for row in some} for split, some in parts.items()}
    assert not couples["train"] & couples["test"]
    assert not couples["train"] & grammar.LECTURE


def test_every_test_word_and_every_noun_as_an_answer_is_in_training(parts):
    words, meant = ({split: set() for split in parts} for _ in range(2))
    for split, some in parts.items():
        for row in some:
            words[split] |= set(row["sentence"].split())
            meant[split].add(row["meant"])
    assert words["test"] <= words["train"] and meant["test"] <= meant["train"]


def test_frame_and_adjective_decide_and_neither_does_alone(rows):
    by_both, by_adjective = defaultdict(set), defaultdict(Counter)
    for row in rows:
        which, adjective = row["meant"] == row["first"], row["sentence"].split()[-1]
        by_both[row["frame"], adjective].add(which)
        by_adjective[adjective][which] += 1
    assert all(len(found) == 1 for found in by_both.values())
    assert sum(max(counts.values()) for counts in by_adjective.values()) < 0.8 * len(rows)


def test_each_sentence_has_one_it_and_its_two_nouns_once(rows):
    for row in rows:
        assert re.fullmatch(r"[a-z ]+ because it (is|was) (too|so) [a-z]+", row["sentence"])
        counts = Counter(row["sentence"].split())
        assert counts["it"] == counts[row["first"]] == counts[row["second"]] == 1


def test_a_grammar_that_is_used_up_says_so(monkeypatch):
    monkeypatch.setitem(grammar.PAIRS, "test", 5000)
    with pytest.raises(ValueError, match=r"test has used up frame \d+"):
        grammar.pronouns()
