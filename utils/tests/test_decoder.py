"""The decoder against torch's own, what each step may see, and generation with and without kept keys and values."""

import itertools
import math

import pytest
import torch
from torch import nn

from utils import parity
from utils.attention import padding_mask
from utils.tests.taught import END, PAD, START, beam_search, translator_of, write
from utils.transformer import Decoder, DecoderLayer, KVCache


def causal(size):
    return torch.ones(size, size, dtype=torch.bool).tril()


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_decoder_layer_equals_torch(norm_first, need_weights):
    torch.manual_seed(0)
    for size, t_k, heads, masked in itertools.product((1, 9), (1, 12), (1, 4), (False, True)):
        d_model, mask = heads * 16, causal(size)
        real = padding_mask(torch.tensor([t_k, 1, max(1, t_k // 2)]), t_k) if masked else None
        masks = {"mask": mask, "memory_mask": real, "need_weights": need_weights}
        their_masks = {"tgt_mask": ~mask, "memory_key_padding_mask": ~real[:, 0] if masked else None}
        found = parity.max_relative_error(
            DecoderLayer(d_model, heads, 48, norm_first=norm_first),
            nn.TransformerDecoderLayer(d_model, heads, 48, dropout=0.0, batch_first=True, norm_first=norm_first),
            lambda ours, x, memory, masks=masks: ours(x, memory, **masks)[0],
            lambda theirs, x, memory, masks=their_masks: theirs(x, memory, **masks),
            torch.randn(3, size, d_model),
            torch.randn(3, t_k, d_model),
        )
        assert parity.within_tolerance(found), found


@pytest.mark.parametrize("norm_first", [False, True])
def test_no_step_sees_the_future(norm_first):
    torch.manual_seed(0)
    decoder, x, memory = Decoder(2, 16, 4, 32, norm_first=norm_first), torch.randn(2, 6, 16), torch.randn(2, 5, 16)
    other = torch.cat([x[:, :3], torch.randn(2, 3, 16)], dim=1)
    before, after = (decoder(part, memory, mask=causal(6))[0] for part in (x, other))
    assert torch.equal(before[:, :3], after[:, :3]) and not torch.allclose(before[:, 3:], after[:, 3:])


@pytest.fixture
def translator():
    torch.manual_seed(0)
    words = ["<pad>", "<start>", "<end>", *"abcdefgh"]
    return translator_of(words, words[:3] + [word.upper() for word in words[3:]]).eval()


def test_step_by_step_gives_what_teacher_forcing_gives(translator):
    source, target = torch.randint(3, 11, (3, 5)), torch.randint(3, 11, (3, 7))
    source[1, 3:] = PAD
    memory, mask = translator.encode(source)
    caches = [KVCache(), KVCache()]
    steps = [translator.decode(target[:, t : t + 1], memory, mask, caches=caches)[0] for t in range(7)]
    assert torch.allclose(torch.cat(steps, dim=1), translator(source, target), atol=1e-5)
    assert [cache.length for cache in caches] == [7, 7]


def test_several_words_at_once_continue_what_is_kept(translator):
    source, target = torch.randint(3, 11, (3, 5)), torch.randint(3, 11, (3, 7))
    memory, mask = translator.encode(source)
    caches = [KVCache(), KVCache()]
    steps = [translator.decode(part, memory, mask, caches=caches)[0] for part in target.split([3, 1, 3], dim=1)]
    assert torch.allclose(torch.cat(steps, dim=1), translator(source, target), atol=1e-5)


def test_a_cache_keeps_what_comes_in_its_order_and_the_rows_that_are_chosen():
    cache, (k, v, new_k, new_v, m, n) = KVCache(), torch.randn(6, 3, 2, 4, 5)
    cache.reorder(torch.tensor([2]))  # nothing yet
    assert all(map(torch.equal, cache.extend(k, v), (k, v)))
    wanted = torch.cat([k, new_k], dim=2), torch.cat([v, new_v], dim=2)
    assert all(map(torch.equal, cache.extend(new_k, new_v), wanted)) and cache.length == 8
    cache.cross_kv, rows = (m, n), torch.tensor([2, 0, 2])
    cache.reorder(rows)
    kept, wanted = [*cache.self_kv, *cache.cross_kv], [part[rows] for part in (*wanted, m, n)]
    assert all(map(torch.equal, kept, wanted)) and cache.length == 8


@pytest.mark.parametrize("norm_first", [False, True])
def test_each_layer_has_a_cache_of_its_own(norm_first):
    torch.manual_seed(0)
    decoder, x, memory = Decoder(2, 16, 4, 32, norm_first=norm_first), torch.randn(1, 2, 16), torch.randn(1, 5, 16)
    caches, wanted = [KVCache(), KVCache()], decoder(x, memory, mask=causal(2))[0]
    for t in range(2):
        h, maps = decoder(x[:, t : t + 1], memory, caches=caches, need_weights=True)
        assert torch.allclose(h[:, 0], wanted[:, t], atol=1e-6) and [cache.length for cache in caches] == [t + 1] * 2
    assert [a.shape for a in maps] == [(1, 4, 1, 5)] * 2 and all(cache.cross_kv for cache in caches)
    with pytest.raises(ValueError, match="shorter"):
        decoder(x, memory, caches=[KVCache()])


@torch.inference_mode()
def test_memory_is_read_once(translator):
    memory, mask = translator.encode(translator.read("a c b"))
    caches, first = [KVCache(), KVCache()], torch.tensor([[START]])
    translator.decode(first, memory, mask, caches=caches)
    scores, _ = translator.decode(first + 5, torch.randn_like(memory), mask, caches=caches)
    whole, _ = translator.decode(torch.cat([first, first + 5], dim=1), memory, mask)
    assert torch.allclose(scores[:, 0], whole[:, 1], atol=1e-5)


@torch.no_grad()
def test_the_decoder_reads_words_of_its_own_language(translator):
    source, target = torch.randint(3, 11, (3, 5)), torch.randint(3, 11, (3, 7))
    memory, before = translator.encode(source), translator(source, target)
    translator.source_embedding.weight.zero_()
    assert torch.equal(translator.decode(target, *memory)[0], before)
    translator.target_embedding.weight.zero_()
    assert not torch.allclose(translator.decode(target, *memory)[0], before, atol=1e-3)


def test_padding_changes_no_score(translator):
    source, target = torch.randint(3, 11, (3, 5)), torch.randint(3, 11, (3, 7))
    padded = nn.functional.pad(source, (0, 4))
    assert torch.allclose(translator(source, target), translator(padded, target), atol=1e-5)


def whole_prefix(translator, sentence):
    """What `beam_search` asks for, from all words so far at every step: nothing kept."""
    memory, mask = translator.encode(translator.read(sentence))

    def next_log_p(tokens, rows):
        return translator.decode(tokens, memory.expand(len(tokens), -1, -1), mask)[0][:, -1].log_softmax(dim=-1)

    return next_log_p


def best_of_all(next_log_p, words, longest):
    """The translation of fewer than `longest` words with the highest mean log-probability, by trying all."""
    candidates = []
    for length in range(longest):
        for body in itertools.product(words, repeat=length):
            row = [START, *body, END]
            log_p = [next_log_p(torch.tensor([row[:t]]), None)[0, row[t]].item() for t in range(1, len(row))]
            candidates.append((sum(log_p) / len(log_p), row))
    return max(candidates)


@torch.no_grad()
def test_greedy_takes_the_most_probable_word_at_each_step(translator):
    translator.predict.bias[:END] = -1e4  # never padding nor start, as after training
    translator.predict.bias[END] = 1.0  # short sentences
    next_log_p = whole_prefix(translator, "a c b")
    row = [START]
    while row[-1] != END and len(row) < 41:
        row.append(int(next_log_p(torch.tensor([row]), None).argmax()))
    assert translator.translate("a c b") == write(row)


@torch.no_grad()
def test_a_wide_beam_finds_the_best_of_all(translator):
    lengths = set()
    for end in (-3.0, 0.0, 3.0):  # the end of a sentence is unlikely, or likely
        translator.predict.bias[:END] = -1e4
        translator.predict.bias[END] = end
        next_log_p = whole_prefix(translator, "a c b")
        wanted_log_p, wanted = best_of_all(next_log_p, range(3, 11), 3)
        found_log_p, found = beam_search(next_log_p, START, END, beam=1000, longest=3)[0]
        assert found == wanted and found_log_p == pytest.approx(wanted_log_p, abs=1e-5)
        lengths.add(len(found))
    assert len(lengths) > 1


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 2, 5])
def test_kept_keys_and_values_follow_their_beginnings(translator, beam):
    for embedding in (translator.source_embedding, translator.target_embedding):
        nn.init.normal_(embedding.weight, std=2.0)  # loud enough for what was written to matter
    translator.predict.bias[:END] = -1e4
    sentences = [" ".join(letters) for letters in itertools.product("aceh", repeat=2)]
    for sentence, end in itertools.product(sentences, (0.0, -1.0)):  # some end soon, others never
        translator.predict.bias[END] = end
        found = beam_search(whole_prefix(translator, sentence), START, END, beam=beam)
        assert translator.translate(sentence, beam=beam) == write(found[0][1])


def test_what_ends_takes_its_place_in_the_beam_with_it():
    P = torch.zeros(6, 6)  # 0 starts, 1 ends
    P[0, 2], P[0, 3], P[2, 4], P[2, 5], P[3, 4], P[3, 1] = 0.55, 0.45, 0.6, 0.4, 0.1, 0.9
    P[4, 1] = P[5, 1] = 1.0
    found = beam_search(lambda tokens, rows: P[tokens[:, -1]].log(), 0, 1, beam=2)
    assert [tokens for _, tokens in found] == [[0, 2, 4, 1], [0, 3, 1]]  # and [0, 2, 5, 1] is given up
    assert [mean for mean, _ in found] == pytest.approx([math.log(0.33) / 3, math.log(0.405) / 2])


def test_a_beam_that_never_ends_gives_what_it_has():
    never = torch.tensor([0.1, 0.2, 0.7]).log()  # word 2 for ever, and the end is none of them
    found = beam_search(lambda tokens, rows: never.expand(len(tokens), 3), 0, 3, longest=4)
    assert found == [(pytest.approx(never[2].item()), [0, 2, 2, 2, 2])]


def test_dropout_is_everywhere_in_a_translator():
    """On embedded words, and in each layer of encoder and decoder: on what is added, in the MLP, on the weights."""
    words = list("pse") + list("abc")
    translator = translator_of(words, words, dropout=0.5)
    shares = [module.p for module in translator.modules() if isinstance(module, nn.Dropout)]
    assert shares == [0.5] * (1 + 2 * 3 + 2 * 4)
    embedded = translator.embed(translator.source_embedding, torch.full((9, 50), 3))
    assert 0.45 < (embedded == 0).float().mean() < 0.55


def test_start_end_and_padding_are_not_written(translator):
    assert write([1, 3, 10, 2, 0, 0]) == "A H"


def test_translating_drops_nothing():
    torch.manual_seed(0)
    translator = translator_of(list("pse") + list("abc"), list("pse") + list("ABC"), dropout=0.5).train()
    assert len({translator.translate("a b c") for _ in range(8)}) == 1
    assert translator.training and translator.decoder.training  # as it was found
    translator.eval().translate("a b c")
    assert not translator.training


def test_unknown_words_are_named(translator):
    with pytest.raises(ValueError, match="unknown words: x, yy"):
        translator.translate("a x b yy")
    with pytest.raises(ValueError, match="no words"):
        translator.translate("  ")
