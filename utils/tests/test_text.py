"""Texts to numbers: what is packed, cached, kept in the vocabulary, and put in a batch."""

import pytest
import torch

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


def test_cache_is_used_and_rebuilt_when_stale_or_damaged(tmp_path, capsys):
    path = tmp_path / "tokens.pt"
    first = text.cached_tokens(TEXTS, "one", path)
    assert list(tmp_path.iterdir()) == [path]
    kept = text.cached_tokens(None, "one", path)  # the texts are not even looked at
    assert kept.words == first.words and torch.equal(kept.packed.ids, first.packed.ids)
    assert text.cached_tokens(["other"], "two", path).words == ["other"]
    path.write_bytes(path.read_bytes()[:100])
    assert text.cached_tokens(["mended"], "two", path).words == ["mended"]
    assert "damaged" in capsys.readouterr().out
    assert text.cached_tokens(None, "two", path).words == ["mended"]


def test_another_version_of_the_cache_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "tokens.pt"
    text.cached_tokens(["old"], "one", path)
    monkeypatch.setattr(text, "CACHE_VERSION", text.CACHE_VERSION + 1)
    assert text.cached_tokens(["new"], "one", path).words == ["new"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "tokens.pt"
    text.cached_tokens(["old"], "one", path)

    def half(what, file):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch, "save", half)
        text.cached_tokens(["new"], "two", path)
    assert text.cached_tokens(None, "one", path).words == ["old"] and list(tmp_path.iterdir()) == [path]


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


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert text.cached_tokens(["dull"], "key", tmp_path / "file" / "tokens.pt").words == ["dull"]
    assert "cannot be written" in capsys.readouterr().out


def test_a_flipped_byte_in_the_cache_is_found(tmp_path, capsys):
    path = tmp_path / "tokens.pt"
    text.cached_tokens([" ".join(f"word{i}" for i in range(500))], "key", path)
    whole = path.read_bytes()
    place = whole.index(b"word250")
    path.write_bytes(whole[:place] + b"wurd250" + whole[place + 7 :])
    assert text.cached_tokens(["mended"], "key", path).words == ["mended"]
    assert "tokens.pt is damaged" in capsys.readouterr().out
