"""The grammar writes the stored files; the toy reviews hold what the notebooks claim about them."""

import re
from collections import Counter, defaultdict

import pytest
from torchtext.data.utils import get_tokenizer

from data import write_toy_reviews as grammar
from utils.datasets import DATA
from utils.files import read_table, write_table

tokens = get_tokenizer("basic_english")


@pytest.fixture(scope="module")
def stored():
    """The rows of the two stored files, as dicts by column."""
    return {half: read_table(DATA / f"toy_reviews_{half}.tsv") for half in ("train", "test")}


def words(rows):
    return {word for row in rows for word in tokens(row["text"])}


def skeletons(rows):
    """The reviews' sentences with every word that a slot takes hidden, good or bad alike."""
    hidden = {card: min(slot, grammar.OPPOSITE.get(slot, slot)) for slot in grammar.WORDS
              for card in grammar.WORDS[slot]}  # fmt: skip
    cards = re.compile(r"\b(" + "|".join(sorted(hidden, key=len, reverse=True)) + r")\b", re.IGNORECASE)
    spelled = {card.lower(): slot for card, slot in hidden.items()}
    texts = (cards.sub(lambda card: f"<{spelled[card[0].lower()]}>", row["text"]) for row in rows)
    return {sentence.strip().lower() for text in texts for sentence in text.split(".")} - {""}


def test_the_grammar_writes_the_stored_files(tmp_path):
    for half, reviews in grammar.toy_reviews().items():
        path = tmp_path / f"toy_reviews_{half}.tsv"
        write_table(path, reviews)
        assert path.read_bytes() == (DATA / path.name).read_bytes(), f"{path.name}: {grammar.__doc__}"


def test_counts_and_balance(stored):
    test = stored["test"]
    mirror, ordinary = [row for row in test if row["pair"]], [row for row in test if not row["pair"]]
    for rows, number in ((stored["train"], 2000), (mirror, 500), (ordinary, 500)):
        assert Counter(row["label"] for row in rows) == {"0": number // 2, "1": number // 2}
    assert not any(row["pair"] for row in stored["train"])
    assert list(stored["train"][0]) == ["label", "frame", "pair", "text"]


def test_every_frame_has_as_many_reviews_of_either_label(stored):
    labels = defaultdict(list)
    for row in stored["train"] + stored["test"]:
        labels[row["frame"]].append(row["label"])
    assert len(labels) == 750
    assert all(sorted(found) == ["0", "0", "1", "1"] for found in labels.values())


def test_lengths_and_vocabulary(stored):
    rows = stored["train"] + stored["test"]
    assert all(8 <= len(row["text"].split()) <= 60 for row in rows)
    assert 250 <= len(words(rows)) <= 350


def test_texts_are_sentences(stored):
    """Nothing is left open, each sentence has its capital, and no article or verb stands before itself."""
    for row in stored["train"] + stored["test"]:
        text = row["text"]
        assert re.fullmatch(r"([A-Z][A-Za-z,:; ]*\.)( [A-Z][A-Za-z,:; ]*\.)*", text), text
        assert not re.search(r"  | [,:;.]|\b(\w+) \1\b|\ba [aeiou]", text), text


def test_mirror_pairs_are_one_bag_and_two_labels(stored):
    pairs = defaultdict(list)
    for row in stored["test"]:
        if row["pair"]:
            pairs[row["pair"]].append(row)
    assert sorted(pairs, key=int) == [str(number) for number in range(1, 251)]
    for first, second in pairs.values():
        assert {first["label"], second["label"]} == {"0", "1"}
        assert first["frame"] == second["frame"]
        assert first["text"] != second["text"]
        assert Counter(tokens(first["text"])) == Counter(tokens(second["text"]))


def test_no_text_occurs_twice(stored):
    texts = Counter(row["text"] for row in stored["train"] + stored["test"])
    assert texts.most_common(1)[0][1] == 1


def test_no_frame_or_sentence_of_the_test_half_is_in_train(stored):
    train, test = stored["train"], stored["test"]
    assert not {row["frame"] for row in train} & {row["frame"] for row in test}
    assert not skeletons(train) & skeletons(test)


def test_every_test_word_is_in_train(stored):
    assert words(stored["test"]) <= words(stored["train"])


def test_asking_for_too_many_frames_says_so(monkeypatch):
    monkeypatch.setitem(grammar.FRAMES, "mirror", {"denial": 1000})
    with pytest.raises(ValueError, match=r"mirror frames of kind denial found, 1000 wanted"):
        grammar.draw_frames("mirror", set(), grammar.random.Random(0))
