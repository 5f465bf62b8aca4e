"""The classifiers: the convolution against torch's own, and what each may and may not see."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from utils.classifiers import LectureClassifier, ReviewClassifier, WordConvolution


def classifier(**options):
    torch.manual_seed(0)
    return ReviewClassifier(50, 16, 4, 32, 2, **options).eval()


def test_padding_changes_no_score():
    model, words = classifier(), torch.randint(1, 50, (3, 9))
    padded = nn.functional.pad(words, (0, 20))
    assert torch.allclose(model(words), model(padded), atol=1e-5)
    assert model(torch.zeros(1, 4, dtype=torch.int64)).isfinite().all()  # a review of padding alone


def test_without_positions_order_changes_no_score_and_with_them_it_does():
    words = torch.randint(1, 50, (3, 9))
    mixed = words[:, torch.randperm(9)]
    bag, ordered = classifier(positions=False), classifier()
    assert torch.allclose(bag(words), bag(mixed), atol=1e-5)
    assert not torch.allclose(ordered(words), ordered(mixed), atol=1e-3)


def convolution(**options):
    torch.manual_seed(0)
    model = WordConvolution(50, 8, **options).eval()
    with torch.no_grad():
        for table in model.tables:
            table.weight *= 100  # of the size that training gives them
        model.bias.normal_()
    return model


def reviews():
    words = torch.randint(1, 50, (4, 12), generator=torch.Generator().manual_seed(0))
    words[1, 7:] = 0
    words[3, 2:] = 0
    return words


def test_the_encoder_pools_the_sum_over_root_t_beside_the_maximum():
    model, words, pooled = classifier(), reviews(), []
    model.classify.register_forward_pre_hook(lambda module, inputs: pooled.append(inputs[0]))
    model(words)
    for review, row in zip(words, pooled[0], strict=True):
        h = model.encoder(model.embed(review[review != 0][None]))[0][0]  # alone, without padding: (T, d_model)
        assert torch.allclose(row, torch.cat([h.sum(0) / len(h) ** 0.5, h.amax(0)]), atol=1e-4)


def as_conv1d(model, words):
    """The same scores by torch's convolution over one-hot words, one review at a time, without padding."""
    pooled = []
    for review in words:
        one_hot = F.one_hot(review[review != 0], 50).T.float()[None]  # (1, words, T)
        h = []
        for table, reach in zip(model.tables, model.reaches):
            filters = table.weight.view(50, 2 * reach + 1, -1).permute(2, 0, 1)  # (U, words, width)
            h.append(F.conv1d(one_hot, filters, padding=reach)[0])  # (U, T)
        h = (torch.cat(h) + model.bias[:, None]).relu()
        pooled.append(torch.cat([h.sum(1) / h.shape[1] ** 0.5, h.amax(1)]))
    return model.classify(torch.stack(pooled))


@pytest.mark.parametrize("reaches", [(0,), (1,), (2,), (1, 2)], ids=str)
def test_the_convolution_is_torchs_over_one_hot_words(reaches):
    model, words = convolution(reaches=reaches), reviews()
    ours, theirs = model(words), as_conv1d(model, words)
    assert torch.allclose(ours, theirs, atol=1e-4)
    for one, other in zip(*(torch.autograd.grad(scores[:, 1].sum(), model.parameters()) for scores in (ours, theirs))):
        assert torch.allclose(one, other, atol=1e-4) and other.abs().max() > 0


def test_padding_changes_nothing_for_the_convolution():
    model, words = convolution(reaches=(1, 2)), reviews()
    assert torch.allclose(model(words), model(F.pad(words, (0, 9))), atol=1e-5)
    assert torch.allclose(model(torch.zeros(2, 3, dtype=torch.long)), model.classify.bias)  # no word, no evidence
    assert all(table.weight[0].eq(0).all() for table in model.tables)


def test_embedding_tables_are_looked_up_for_the_word_itself():
    model, alone = convolution(reaches=(1, 2)), torch.tensor([[7]])  # a word without neighbours
    assert not torch.allclose(model(alone), model.classify.bias)
    with torch.no_grad():
        for numbers in model.embedding_tables():
            numbers.zero_()
        model.bias.zero_()
    assert torch.allclose(model(alone), model.classify.bias)


def test_the_convolution_sees_neighbours_only():
    words = torch.arange(1, 13)[None]
    assert not torch.allclose(convolution()(words), convolution()(words.flip(1)), atol=1e-3)
    alone = convolution(reaches=(0,))
    assert torch.allclose(alone(words), alone(words.flip(1)), atol=1e-4)
    swapped = torch.cat([words[:, 6:], words[:, :6]], 1)  # all neighbours but one pair stay
    far, near = ((convolution()(words) - convolution()(other)).abs().max() for other in (words.flip(1), swapped))
    assert near < far


def test_the_lectures_model_reads_padding_as_words_and_no_longer_review():
    torch.manual_seed(0)
    model = LectureClassifier(10, 8, 2, 16, 1)
    words = torch.tensor([[3, 4, 5]])
    longer = F.pad(words, (0, 4))
    assert torch.allclose(model(words), model(longer), atol=1e-5)  # filled up
    x = model.embedding(F.pad(words, (0, 197)))
    assert model(words).grad_fn is not None and x.shape[1] == model.length
    model.length = 7
    few = model(words)
    model.length = 200
    assert not torch.allclose(few, model(words), atol=1e-3)  # padding is a word like any other
    with pytest.raises(ValueError, match="201 words.*200"):
        model(torch.ones(1, 201, dtype=torch.long))


def test_louder_words_are_louder_and_positions_as_loud_as_before():
    words = reviews()
    plain, loud = classifier(), classifier(word_scale=8.0)
    positions = plain.embed(torch.zeros(1, 12, dtype=torch.long))  # padding is silent: its vector is 0
    assert not plain.embedding.weight[0].any()
    assert torch.allclose(loud.embed(words) - positions, 8 * (plain.embed(words) - positions), atol=1e-5)


def test_as_many_layers_as_asked_for():
    assert [len(ReviewClassifier(50, 16, 4, 32, layers).encoder.layers) for layers in (0, 1, 3)] == [0, 1, 3]
    assert len(LectureClassifier(50, 16, 4, 32, 3).encoder.layers) == 3


def test_dropout_acts_on_embedded_words_and_on_what_is_pooled_and_only_while_training():
    model, embedded, pooled = classifier(dropout=0.5), [], []
    model.encoder.register_forward_pre_hook(lambda module, inputs: embedded.append(inputs[0]))
    model.classify.register_forward_pre_hook(lambda module, inputs: pooled.append(inputs[0]))
    words = torch.randint(1, 50, (8, 40))
    for training in (True, False):
        model.train(training)(words)
    for dropped, whole in (embedded, pooled):
        assert 0.4 < (dropped == 0).float().mean() < 0.6 and not (whole == 0).any()
    network, pooled = convolution(dropout=0.5), []
    network.classify.register_forward_pre_hook(lambda module, inputs: pooled.append(inputs[0]))
    for training in (True, False):
        network.train(training)(words)
    assert 0.3 < (pooled[0] == 0)[pooled[1] != 0].float().mean() < 0.7


def test_the_lectures_model_normalises_and_pools_by_the_maximum_alone():
    torch.manual_seed(0)
    model, seen, pooled = LectureClassifier(10, 8, 2, 16, 1), [], []
    model.encoder.register_forward_hook(lambda module, inputs, outputs: seen.extend([inputs[0], outputs[0]]))
    model.classify.register_forward_pre_hook(lambda module, inputs: pooled.append(inputs[0]))
    model(torch.tensor([[3, 4, 5]]))
    assert seen[0].mean(2).abs().max() < 1e-5 and (seen[0].var(2, unbiased=False) - 1).abs().max() < 1e-3
    assert torch.equal(pooled[0], seen[1].amax(1))


MODELS = {
    "encoder": classifier(),
    "convolution": convolution(reaches=(1, 2)),
    "lecture": LectureClassifier(50, 16, 4, 32, 1).eval(),
}


@pytest.mark.parametrize("name", MODELS)
@given(st.integers(0, 3), st.integers(1, 9), st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 1.0]))
def test_every_batch_is_answered_each_review_by_itself(name, B, T, seed, share):
    """No review at all, padding alone, padding between words: finite, and neighbours in the batch do not matter."""
    model, generator = MODELS[name], torch.Generator().manual_seed(seed)
    words = torch.randint(1, 50, (B, T), generator=generator)
    words = words.masked_fill(torch.rand(B, T, generator=generator) < share, 0)
    scores = model(words)
    assert scores.shape == (B, 2) and scores.isfinite().all()
    for review, one in zip(words, scores, strict=True):
        assert torch.allclose(model(review[None])[0], one, atol=1e-4)
    strided = words.repeat_interleave(2, dim=1)[:, ::2]
    assert torch.allclose(model(strided.int()), scores, atol=1e-5)  # 32 bits will do


WORDS = reviews()
BAD = {
    "odd size": (lambda: ReviewClassifier(50, 15, 3, 32, 1)(WORDS), ValueError, "d_model=15 .*: use an even number"),
    "heads": (lambda: ReviewClassifier(50, 16, 3, 32, 1), ValueError, "d_model=16 .* num_heads=3: use a divisor of 16"),
    "no heads": (lambda: ReviewClassifier(50, 16, 0, 32, 1), ValueError, "num_heads=0: use a divisor of 16"),
    "heads of the lecture's": (lambda: LectureClassifier(50, 16, 5, 32, 1), ValueError, "num_heads=5: use a divisor"),
    "dropout": (lambda: ReviewClassifier(50, 16, 4, 32, 1, dropout=-0.1), ValueError, "between 0 and 1, but got -0.1"),
    "dropout of units": (lambda: WordConvolution(50, 8, dropout=1.2), ValueError, "between 0 and 1, but got 1.2"),
    "too long for the lecture's": (
        lambda: MODELS["lecture"](torch.ones(1, 201).long()), ValueError,
        "a review has 201 words, but this model reads at most 200"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_call_says_what_is_wrong(name):
    call, error, said = BAD[name]
    with pytest.raises(error, match=said):
        call()
