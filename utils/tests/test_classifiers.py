"""The two classifiers: against attention written out over the whole review, and what each may not see."""

import math

import pytest
import torch

from utils.classifiers import LectureClassifier, PhraseClassifier, neighbours


class Further(PhraseClassifier):
    reach = 2


def small(kind=PhraseClassifier, **options):
    torch.manual_seed(0)
    model = kind(50, 8, 6, ahead=2.0, **options).eval()
    with torch.no_grad():
        for table in (model.sum_values.weight, model.max_values.weight):
            table *= 30
    return model


def reviews():
    words = torch.randint(1, 50, (4, 12), generator=torch.Generator().manual_seed(0))
    words[1, 7:] = 0
    words[3, 2:] = 0
    return words


def in_full(model, words):
    """The same scores by attention over all T × T pairs, masked outside the reach, every value with a gradient."""
    B, T = words.shape
    real = words != 0
    tables = model.sum_values.weight, model.max_values.weight
    s, m = (table.view(50, 3, -1)[words] * real[..., None, None] for table in tables)  # (B, T, H, units)
    place = torch.arange(T)
    apart = place - place[:, None]  # (T, T), j - i
    near = apart.abs() <= model.reach
    scores = model.distance[:, apart.clamp(-model.reach, model.reach) + model.reach]  # (H, T, T)
    if model.content:
        q, k = model.queries_keys(s.flatten(2)).view(B, T, 2, 3, model.d_key).unbind(2)
        scores = scores + torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(model.d_key)
    a = scores.expand(B, -1, -1, -1).masked_fill(~(near & real[:, None, None]), -torch.inf).softmax(3).nan_to_num()
    total = (torch.einsum("bhij,bjhs->bis", a, s) + model.bias[: model.S]).relu() * real[..., None]
    largest = torch.einsum("bhij,bjhs->bis", a, m).masked_fill(~real[..., None], -torch.inf).amax(1)
    pooled = [total.sum(1) / real.sum(1, keepdim=True).sqrt(), (largest + model.bias[model.S :]).relu()]
    return model.classify(torch.cat(pooled, 1))


@pytest.mark.parametrize("options", [{}, {"kind": Further}, {"content": False}], ids=str)
def test_scores_and_gradients_are_those_of_attention_in_full(options):
    model, words = small(**options), reviews()
    ours, wanted = model(words), in_full(model, words)
    assert torch.allclose(ours, wanted, atol=1e-5)
    for one, other in zip(*(torch.autograd.grad(scores[:, 1].sum(), model.parameters()) for scores in (ours, wanted))):
        assert torch.allclose(one.to_dense(), other, atol=1e-5)
        assert other.abs().max() > 0


def test_padding_changes_nothing():
    model, words = small(), reviews()
    padded = torch.nn.functional.pad(words, (0, 9))
    assert torch.allclose(model(words), model(padded), atol=1e-5)
    assert model(torch.zeros(2, 3, dtype=torch.long)).isfinite().all()


def test_order_matters_among_neighbours_only():
    model = small()
    words = torch.arange(1, 13)[None]
    weights = model.weights(model.sum_values.weight.view(50, 3, -1)[words], words != 0)
    assert weights.shape == (1, 12, 3, 3) and torch.allclose(weights.sum(3), torch.ones(1, 12, 3))
    assert weights[0, 0, :, 0].eq(0).all() and weights[0, 11, :, 2].eq(0).all()  # nothing before, nothing after
    assert model.distance.argmax(1).tolist() == [1, 2, 0]  # itself, the next, the one before
    assert not torch.allclose(model(words), model(words.flip(1)), atol=1e-4)


def test_blanked_words_keep_their_place_and_have_no_value():
    model = small(word_dropout=1.0).train()
    table = model.max_values.weight.view(50, 3, 6)
    assert model(reviews()[:1])[0].equal(model.classify.bias)  # no word is seen
    model.word_dropout = 0.5
    model(reviews()).sum().backward()
    gradient = model.max_values.weight.grad.to_dense().view_as(table)
    assert gradient[0].eq(0).all() and gradient[1:].abs().sum() > 0


def test_start_from_log_odds_already_tells_good_from_bad():
    model = PhraseClassifier(50, 8, 6, ahead=4.0)
    odds = torch.zeros(50)
    odds[10], odds[20] = 3.0, -3.0
    model.start_from(odds, 1.0)
    with torch.no_grad():
        model.classify.weight.copy_(
            torch.tensor([[-1.0], [1.0]]) * torch.tensor([1.0] * 4 + [-1] * 4 + [1] * 3 + [-1] * 3)
        )
    started = model.max_values.weight.view(50, 3, 6)
    assert (started[10, :, :3] > 0).sum() >= 7 and (started[10, :, 3:] < 0).sum() >= 7
    bad, good = (model(torch.tensor([[5, word, 6]]))[0].diff().item() for word in (20, 10))
    assert bad < 0 < good


def test_neighbours_stand_where_they_say():
    before, itself, after = neighbours(torch.tensor([[1, 2, 3]]), 1)
    assert (before.tolist(), itself.tolist(), after.tolist()) == ([[0, 1, 2]], [[1, 2, 3]], [[2, 3, 0]])


def test_the_lectures_model_reads_padding_and_masking_ends_that():
    words = torch.tensor([[3, 4, 5]])
    longer = torch.nn.functional.pad(words, (0, 4))
    for masked in (False, True):
        torch.manual_seed(0)
        model, alone = (LectureClassifier(10, 8, 2, 16, 1, masked=masked, mean=masked) for _ in range(2))
        model.length, alone.length = 7, 3
        alone.load_state_dict(model.state_dict())
        assert torch.allclose(model(words), model(longer), atol=1e-5)  # filled up, or masked
        assert torch.allclose(alone(words), model(words), atol=1e-5) == masked
        if not masked:
            every_place = model.encoder(model.embed(longer))[0].amax(1)
            assert torch.allclose(model(words), model.classify(every_place), atol=1e-6)


def test_without_units_pooled_by_the_maximum():
    model = PhraseClassifier(50, 8, 0, ahead=4.0)
    model.start_from(torch.ones(50), 0.1)
    assert model(reviews()).shape == (4, 2)
