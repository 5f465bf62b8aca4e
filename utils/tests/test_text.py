"""Texts to numbers: what is packed, cached, kept in the vocabulary, and put in a batch."""

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils import text, training
from utils.classifiers import ReviewClassifier, WordConvolution

TEXTS = ["A lovely film!", "Dull, dull film.", "", "Lovely."]


@pytest.fixture
def tokens():
    return text.tokenize_all(TEXTS)


def words_of(tokens, i):
    return [tokens.words[j] for j in tokens.packed[i]]


def test_tokens_are_the_texts(tokens):
    assert [words_of(tokens, i) for i in range(4)] == [text.tokenize(one) for one in TEXTS]
    assert tokens.packed.lengths.tolist() == [4, 5, 0, 2] and len(set(tokens.words)) == len(tokens.words)


def test_vocabulary_counts_groups_not_occurrences(tokens):
    groups = torch.tensor([1, 1, 2, 2])
    assert text.build_vocabulary(tokens, torch.arange(4), groups, 2).itos == ["<pad>", "<unk>", ".", "lovely"]
    everything = text.build_vocabulary(tokens, torch.arange(4), groups, 1).itos
    assert everything[2:4] == [".", "lovely"] and set(everything[2:]) == set(tokens.words)
    only_first = text.build_vocabulary(tokens, torch.tensor([0]), groups, 1).itos
    assert set(only_first[2:]) == {"a", "lovely", "film", "!"}  # words of other rows do not leak in


def test_encode_gives_unknown_words_one_number(tokens):
    vocabulary = text.build_vocabulary(tokens, torch.arange(4), torch.tensor([1, 1, 2, 2]), 2)
    assert text.encode(tokens, vocabulary)[0].tolist() == [text.UNKNOWN, 3, text.UNKNOWN, text.UNKNOWN]
    assert "film" not in vocabulary.stoi  # looking up does not add it


def test_pad_fills_up_to_the_longest():
    packed = text.Packed(torch.arange(1, 11), torch.tensor([0, 7, 7, 10]))
    assert text.pad(packed, torch.tensor([2, 1, 0])).tolist() == [[8, 9, 10] + 4 * [0], 7 * [0], [1, 2, 3, 4, 5, 6, 7]]
    assert text.pad(packed, torch.tensor([2])).tolist() == [[8, 9, 10]]  # only to the batch's own longest


def test_cuts():
    packed = text.Packed(torch.arange(1, 11, dtype=torch.int32), torch.tensor([0, 7, 7, 10]))
    assert [one.tolist() for one in packed.head_and_tail(4)] == [[1, 2, 6, 7], [], [8, 9, 10]]
    assert [one.tolist() for one in packed.head_and_tail(5)] == [[1, 2, 5, 6, 7], [], [8, 9, 10]]
    assert [one.tolist() for one in packed.first_tokens(2)] == [[1, 2], [], [8, 9]]
    assert packed.head_and_tail(7).ids.equal(packed.ids) and packed.first_tokens(7).ids.equal(packed.ids)


def test_dropped_words_leave_texts_in_place():
    packed = text.Packed(torch.arange(10000), torch.tensor([0, 4000, 4000, 10000]))
    dropped = packed.drop_words(0.3, torch.Generator().manual_seed(0))
    assert len(dropped) == 3 and dropped.lengths[1] == 0 and 0.68 < len(dropped.ids) / 10000 < 0.72
    assert dropped[0].max() < 4000 <= dropped[2].min() and torch.equal(dropped.ids.unique(), dropped.ids)
    assert torch.equal(packed.drop_words(0.0).ids, packed.ids)


def test_scrambled_words_stay_in_their_text():
    packed = text.Packed(torch.arange(10000), torch.tensor([0, 4000, 4000, 10000]))
    mixed = text.scramble(packed, torch.Generator().manual_seed(0))
    assert torch.equal(mixed.offsets, packed.offsets)
    for before, after in zip(packed, mixed):
        assert torch.equal(after.sort().values, before)
    at_home = (mixed.ids == packed.ids).sum()  # of a random order about one in each text
    assert at_home < 12


def test_batches_hold_each_row_once_and_similar_lengths():
    lengths = torch.randint(1, 500, (2000,), generator=torch.Generator().manual_seed(1))
    for generator in (None, torch.Generator().manual_seed(0)):
        batches = text.batch_rows(lengths, 32, generator)
        assert sorted(torch.cat(batches).tolist()) == list(range(2000))
        padding = sum(int(lengths[b].max()) * len(b) for b in batches) / lengths.sum() - 1
        assert padding < 0.1
    again, other = (text.batch_rows(lengths, 32, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert all(map(torch.equal, batches, again)) and not all(map(torch.equal, batches, other))


def test_kept_tokens_are_used_until_the_texts_change(tmp_path):
    path = tmp_path / "tokens.pt"
    first = text.cached_tokens(TEXTS, "one", path)
    kept = text.cached_tokens(None, "one", path)  # the texts are not even looked at
    assert kept.words == first.words
    assert torch.equal(kept.packed.ids, first.packed.ids) and torch.equal(kept.packed.offsets, first.packed.offsets)
    assert text.cached_tokens(["other"], "two", path).words == ["other"]
    for _ in range(2):
        assert text.cached_tokens([""], "empty", path).words == []


def test_another_version_of_the_cache_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "tokens.pt"
    text.cached_tokens(["old"], "one", path)
    monkeypatch.setattr(text, "CACHE_VERSION", text.CACHE_VERSION + 1)
    assert text.cached_tokens(["new"], "one", path).words == ["new"]


def test_the_most_frequent_words_of_the_chosen_texts():
    tokens = text.tokenize_all(["a a a b", "b c c", "d d d d"], text.TOKENIZERS["spaces"])
    vocabulary = text.frequent_words(tokens, torch.tensor([0, 1]), 2)
    assert vocabulary.itos == ["<pad>", "<unk>", "a", "b"]  # b before c: equals go by the alphabet


def test_each_tokenizer_has_a_cache_of_its_own(tmp_path):
    path = tmp_path / "tokens.pt"
    assert text.cached_tokens(["Dull, dull"], "key", path).words == ["dull", ","]
    assert text.cached_tokens(["Dull, dull"], "key", path, "spaces").words == ["dull,", "dull"]


def test_an_empty_text_is_padding_and_a_model_answers_it(task):
    model = ReviewClassifier(len(task.vocabulary), 16, 2, 16, 1).eval()
    convolution = WordConvolution(len(task.vocabulary), 4).eval()
    for texts in ([""], ["", "Lovely."], ["   ", "\n\t"], [".", "\0", "<br />", "😀 ÷ \u202e"]):
        packed = text.encode(text.tokenize_all(texts), task.vocabulary)
        batch = text.pad(packed, torch.arange(len(texts)))
        assert batch.shape == (len(texts), max(1, int(packed.lengths.max())))
        for classifier in (model, convolution):
            assert classifier(batch).isfinite().all()
            scores = training.predict(classifier, packed, torch.arange(len(texts)), max_tokens=8)
            assert scores.shape == (len(texts), 2) and torch.allclose(scores, classifier(batch), atol=1e-5)


def test_a_megabyte_in_one_line_is_cut_and_answered(task):
    packed = text.encode(text.tokenize_all(["dull " * 200_000]), task.vocabulary)
    model = ReviewClassifier(len(task.vocabulary), 16, 2, 16, 1)
    assert training.predict(model, packed, torch.tensor([0]), max_tokens=512).isfinite().all()


def test_more_films_than_there_are_is_said():
    tokens = text.tokenize_all(["dull film", "lovely film"])
    with pytest.raises(ValueError, match="no word is in 3 different films"):
        text.build_vocabulary(tokens, torch.arange(2), torch.tensor([7, 8]), 3)


ANY = st.text() | st.text("aB'\".,()!?;:<br />\n\t\0éß\u2028\u202e\ud800İ😀")  # with lone halves of pairs


def slowly(line):
    """What the documentation of torchtext's basic_english promises, one character at a time."""
    tokens, word, line = [], "", line.lower().replace('"', "")  # lower case; " is removed
    while line:
        size = len("<br />") if line.startswith("<br />") else 1
        part, line = line[:size], line[size:]
        if size == 1 and part not in "'.,()!?;:" and not part.isspace():
            word += part
            continue
        tokens += [word] if word else []  # at ; and : and blanks and <br /> a word ends
        tokens += [part] if part in "'.,()!?" else []  # these are words themselves
        word = ""
    return tokens + ([word] if word else [])


@given(ANY)
def test_the_tokenizer_does_what_its_documentation_says(line):
    assert text.tokenize(line) == slowly(line)
    assert text.split_at_spaces(line) == line.lower().split()


@given(st.lists(ANY, max_size=4))
def test_any_texts_come_back_from_the_cache_as_they_were(texts):
    with tempfile.TemporaryDirectory() as folder:
        first, kept = (text.cached_tokens(texts, "key", Path(folder, "tokens.pt")) for _ in range(2))
    for tokens in (first, kept):
        assert [words_of(tokens, i) for i in range(len(tokens.packed))] == [text.tokenize(one) for one in texts]


@settings(max_examples=15)
@given(st.lists(ANY, min_size=1, max_size=4), st.integers(1, 9))
def test_any_unicode_is_answered_each_text_by_itself(task, texts, max_tokens):
    packed = text.encode(text.tokenize_all(texts), task.vocabulary)
    torch.manual_seed(0)
    for model in (ReviewClassifier(len(task.vocabulary), 8, 2, 8, 1), WordConvolution(len(task.vocabulary), 4)):
        scores = training.predict(model, packed, torch.arange(len(texts)), max_tokens=max_tokens)
        assert scores.shape == (len(texts), 2) and scores.isfinite().all()
        for i in range(len(texts)):
            alone = training.predict(model, packed, torch.tensor([i]), max_tokens=max_tokens)
            assert torch.allclose(scores[i], alone[0], atol=1e-5)


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("\0", ["\0"]),
        ("<p>dull</p>", ["<p>dull</p>"]),
        ("dull<br />film<BR />", ["dull", "film"]),
        ("?!...", ["?", "!", ".", ".", "."]),
        ('it\'s "art"; (or: not)', ["it", "'", "s", "art", "(", "or", "not", ")"]),
        ("\u2028\u00a0", []),
        ("x" * 10**6, ["x" * 10**6]),
        ("." * 10**6, ["."] * 10**6),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_strange_texts_have_a_documented_result(line, tokens):
    assert text.tokenize(line) == tokens


packed_texts = st.lists(st.lists(st.integers(1, 9), max_size=7), min_size=1, max_size=5)


def pack(texts):
    offsets = torch.tensor([0, *map(len, texts)]).cumsum(0)
    return text.Packed(torch.tensor([x for one in texts for x in one], dtype=torch.int32), offsets)


@given(packed_texts, st.integers(0, 8))
def test_packed_texts_are_their_lists(texts, size):
    packed = pack(texts)
    half = size // 2
    tails = [one if len(one) <= size else one[:half] + one[len(one) - (size - half) :] for one in texts]
    assert len(packed) == len(texts) and [one.tolist() for one in packed] == texts
    assert packed.positions().tolist() == [place for one in texts for place in range(len(one))]
    assert [one.tolist() for one in packed.first_tokens(size)] == [one[:size] for one in texts]
    assert [one.tolist() for one in packed.head_and_tail(size)] == tails
    T = max(1, *map(len, texts))
    assert text.pad(packed, torch.arange(len(texts))).tolist() == [one + [0] * (T - len(one)) for one in texts]
    mixed = text.scramble(packed, torch.Generator().manual_seed(size))
    assert [sorted(one.tolist()) for one in mixed] == [sorted(one) for one in texts]


def test_a_batch_of_no_text_is_a_batch():
    assert text.pad(pack([[1, 2]]), torch.arange(0)).shape == (0, 1)


def test_what_is_random_follows_its_generator():
    packed = pack([[1, 2, 3, 4, 5, 6, 7, 8]] * 200)
    for drawn in (lambda seed: packed.drop_words(0.5, torch.Generator().manual_seed(seed)).ids,
                 lambda seed: text.scramble(packed, torch.Generator().manual_seed(seed)).ids):  # fmt: skip
        assert drawn(0).equal(drawn(0)) and not drawn(0).equal(drawn(1))


def test_batches_are_shuffled_in_three_ways():
    """Which rows meet in a pool, which batches come first; inside a pool the lengths are sorted."""
    one_pool = [int(rows[0]) for rows in text.batch_rows(torch.arange(100), 2, torch.Generator().manual_seed(0))]
    assert len(one_pool) == 50 and one_pool != sorted(one_pool)  # batches in any order
    lengths = torch.arange(4000)
    batches = text.batch_rows(lengths, 10, torch.Generator().manual_seed(0))
    spreads = [int(lengths[rows].max() - lengths[rows].min()) for rows in batches]
    assert 20 < sum(spreads) / len(spreads) < 400  # of 500 out of 4000, sorted: 80 apart; neighbours alone would be 9
    pools = text.batch_rows(torch.zeros(1000), 1, torch.Generator().manual_seed(0))  # 20 pools of 50
    assert sum(int(rows) < 500 for rows in pools[:500]) < 350 and len(torch.cat(pools).unique()) == 1000
    halves = torch.cat(text.batch_rows(torch.arange(1000), 10, torch.Generator().manual_seed(1))[:50])
    assert 150 < (halves < 500).sum() < 350  # the first pool is no part of the set


def test_a_word_often_in_one_film_is_not_in_many():
    tokens = text.tokenize_all(["goblin goblin goblin film", "film", "film"], text.TOKENIZERS["spaces"])
    vocabulary = text.build_vocabulary(tokens, torch.arange(3), torch.tensor([5, 6, 7]), 3)
    assert vocabulary.itos == ["<pad>", "<unk>", "film"]
    with pytest.raises(ValueError, match="no word is in 2 different films"):
        text.build_vocabulary(tokens, torch.tensor([0]), torch.tensor([5, 6, 7]), 2)


TOKENS = text.tokenize_all(["dull film", "lovely film"])
PACKED = pack([[1, 2], [3]])
BAD = {
    "films beyond all": (
        lambda: text.build_vocabulary(TOKENS, torch.arange(2), torch.tensor([7, 8]), 3), ValueError,
        "no word is in 3 different films: ask for fewer"),
    "no text": (
        lambda: text.build_vocabulary(TOKENS, torch.arange(0), torch.tensor([7, 8]), 1), ValueError,
        "no word is in 1 different films"),
    "no words in any text": (
        lambda: text.build_vocabulary(text.tokenize_all([""]), torch.arange(1), torch.tensor([7]), 1), ValueError,
        "no word is in 1 different films"),
    "unknown tokenizer": (
        lambda: text.cached_tokens(["a"], "key", Path("nowhere"), "wordpiece"), KeyError, "wordpiece"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_call_says_what_is_wrong(name):
    call, error, said = BAD[name]
    with pytest.raises(error, match=said):
        call()
