"""The encoder against torch's own, and what sets, positions and padding must and must not change."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from utils import twins
from utils.attention import MultiHeadAttention, attend, padding_mask, softargmax
from utils.classifiers import LectureClassifier, ReviewClassifier, WordConvolution
from utils.tests.taught import beam_search, translator_of
from utils.transformer import (
    Decoder,
    DecoderLayer,
    Encoder,
    EncoderLayer,
    masked_pool,
    sinusoidal_positions,
)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_encoder_layer_equals_torch(norm_first, need_weights):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    for size, heads, masked in itertools.product((1, 9, 33), (1, 4), (False, True)):
        batch, d_model = int(torch.randint(1, 5, (), generator=generator)), heads * 16
        mask = padding_mask(torch.randint(1, size + 1, (batch,), generator=generator), size) if masked else None
        hidden = ~mask[:, 0] if masked else None
        found = twins.differences(
            EncoderLayer(d_model, heads, 48, norm_first=norm_first),
            nn.TransformerEncoderLayer(d_model, heads, 48, dropout=0.0, batch_first=True, norm_first=norm_first),
            lambda ours, x, mask=mask: ours(x, mask=mask, need_weights=need_weights)[0],
            lambda theirs, x, hidden=hidden: theirs(x, src_key_padding_mask=hidden),
            torch.randn(batch, size, d_model),
        )
        assert twins.agree(found), found


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_is_equivariant_and_returns_every_map(norm_first):
    torch.manual_seed(0)
    encoder, x, order = Encoder(3, 16, 4, 32, norm_first=norm_first), torch.randn(2, 7, 16), torch.randperm(7)
    h, maps = encoder(x, need_weights=True)
    assert torch.allclose(encoder(x[:, order])[0], h[:, order], atol=1e-5)
    assert [a.shape for a in maps] == [(2, 4, 7, 7)] * 3 and encoder(x)[1] == [None] * 3


def test_sinusoidal_positions():
    table = sinusoidal_positions(50, 8)
    assert table.shape == (50, 8) and table[0].tolist() == [0.0, 1.0] * 4
    for i in range(4):
        angle = 7 / 10000 ** (2 * i / 8)
        assert torch.allclose(table[7, 2 * i : 2 * i + 2], torch.tensor([math.sin(angle), math.cos(angle)]), atol=1e-6)
    with pytest.raises(ValueError, match="use an even number"):
        sinusoidal_positions(5, 7)


def test_masked_pool():
    h = torch.tensor([[[1.0, -4.0], [3.0, -2.0], [9.0, 9.0]], [[5.0, 5.0]] * 3])
    mask = torch.tensor([[True, True, False], [False] * 3])
    assert masked_pool(h, mask).tolist() == [[2.0, -3.0, 3.0, -2.0], [0.0] * 4]


SIZES = st.integers(0, 4)


@given(SIZES, SIZES, SIZES, st.booleans(), st.booleans())
def test_both_ways_are_one_for_sets_of_every_size(B, T, T_k, norm_first, masked):
    """With no set, none in it, one; and what comes out has what went in for a shape."""
    torch.manual_seed(0)
    x, memory = torch.randn(B, T, 8), torch.randn(B, T_k, 8)
    mask, memory_mask = (torch.rand(B, 1, size) > 0.5 if masked else None for size in (T, T_k))
    encoder, decoder = Encoder(2, 8, 2, 16, norm_first=norm_first), Decoder(2, 8, 2, 16, norm_first=norm_first)
    masks = {"mask": mask, "memory_mask": memory_mask}
    results = []
    for need_weights in (False, True):
        h, maps = encoder(x, mask=mask, need_weights=need_weights)
        g, cross = decoder(x, memory, **masks, need_weights=need_weights)
        results.append((h, g))
    for fused, plain in zip(*results):
        assert fused.shape == x.shape and fused.isfinite().all() and torch.allclose(fused, plain, atol=1e-5)
    assert [a.shape for a in maps] == [(B, 2, T, T)] * 2 and [a.shape for a in cross] == [(B, 2, T, T_k)] * 2


@given(SIZES, st.integers(1, 5), st.integers(0, 2**32))
def test_masked_pool_is_its_definition(B, T, seed):
    generator = torch.Generator().manual_seed(seed)
    h, mask = torch.randn(B, T, 3, generator=generator), torch.rand(B, T, generator=generator) > 0.5
    for x, real, pooled in zip(h, mask, masked_pool(h, mask), strict=True):
        wanted = torch.cat([x[real].mean(0), x[real].amax(0)]) if real.any() else torch.zeros(6)
        assert torch.allclose(pooled, wanted, atol=1e-6)


def with_everything_dropped(layer, part):
    """`layer` with this one of its dropouts at 1 and the others at 0, as in training."""
    for name, module in layer.named_modules():
        if isinstance(module, nn.Dropout):
            module.p = float(name == part)
    return layer.train()


ADDED = {"attention.dropout": "attention", "mlp.2": "mlp", "dropout": "all"}


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("part", ["attention.dropout", "mlp.2", "dropout"])
def test_each_dropout_of_an_encoder_layer_is_on_its_way_and_on_no_other(norm_first, part):
    torch.manual_seed(0)
    layer, x = EncoderLayer(8, 2, 16, dropout=0.5, norm_first=norm_first), torch.randn(2, 3, 8)
    assert [name for name, module in layer.named_modules() if isinstance(module, nn.Dropout)] == list(ADDED)
    nn.init.normal_(layer.attention.out_proj.bias)
    norm1, norm2 = (nn.Identity(), layer.norm2) if norm_first else (layer.norm1, layer.norm2)
    bias = layer.attention.out_proj.bias.expand_as(x)  # of attention without weights this is left
    attended = layer.attention.eval()(layer.norm1(x) if norm_first else x)[0]
    attended = {"attention.dropout": bias, "mlp.2": attended, "dropout": torch.zeros_like(x)}[part]
    y = norm1(x + attended)
    hidden = layer.mlp.eval()(layer.norm2(y) if norm_first else y)
    hidden = {"attention.dropout": hidden, "mlp.2": layer.mlp[3].bias, "dropout": torch.zeros_like(x)}[part]
    wanted = y + hidden if norm_first else norm2(y + hidden)
    assert torch.allclose(with_everything_dropped(layer, part)(x)[0], wanted, atol=1e-5)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("part", ["attention.dropout", "cross_attention.dropout", "mlp.2", "dropout"])
def test_each_dropout_of_a_decoder_layer_is_on_its_way_and_on_no_other(norm_first, part):
    torch.manual_seed(0)
    layer = DecoderLayer(8, 2, 16, dropout=0.5, norm_first=norm_first)
    x, memory = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    names = ["attention.dropout", "cross_attention.dropout", "mlp.2", "dropout"]
    assert [name for name, module in layer.named_modules() if isinstance(module, nn.Dropout)] == names
    for attention in (layer.attention, layer.cross_attention):
        nn.init.normal_(attention.out_proj.bias)
    layer.eval()
    y = x
    ways = (
        ("attention.dropout", layer.norm1, lambda z: layer.attention(z)[0], layer.attention.out_proj.bias),
        ("cross_attention.dropout", layer.norm2, lambda z: layer.cross_attention(z, memory)[0],
         layer.cross_attention.out_proj.bias),
        ("mlp.2", layer.norm3, layer.mlp, layer.mlp[3].bias),
    )  # fmt: skip
    for name, norm, way, left in ways:
        added = way(norm(y) if norm_first else y)
        added = left.expand_as(x) if part == name else added * 0 if part == "dropout" else added
        y = y + added if norm_first else norm(y + added)
    assert torch.allclose(with_everything_dropped(layer, part)(x, memory)[0], y, atol=1e-5)


X, WORDS = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([[3, 4, 5, 6], [7, 3, 0, 0]])
VOCABULARY = ["<pad>", "<start>", "<end>", *"abcdefgh"]
MODULES = {
    "attention": (lambda: MultiHeadAttention(8, 2), (X,)),
    "encoder": (lambda: Encoder(2, 8, 2, 16), (X,)),
    "decoder": (lambda: Decoder(2, 8, 2, 16), (X, X)),
    "review classifier": (lambda: ReviewClassifier(11, 16, 4, 32, 1), (WORDS,)),
    "convolution": (lambda: WordConvolution(11, 8, reaches=(1, 2)), (WORDS,)),
    "the lecture's": (lambda: LectureClassifier(11, 16, 4, 32, 1), (WORDS,)),
    "translator": (lambda: translator_of(VOCABULARY, VOCABULARY), (WORDS, WORDS)),
}


def same_results(module, other, inputs):
    """Of both, for these inputs and for more and shorter sets."""
    for given_inputs in (inputs, tuple(torch.cat([x, x])[:3, :3] for x in inputs)):
        ours, theirs = module(*given_inputs), other(*given_inputs)
        ours, theirs = (x if torch.is_tensor(x) else x[0] for x in (ours, theirs))
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_modules_export_for_sets_of_any_size(name):
    torch.manual_seed(0)
    make, inputs = MODULES[name]
    any_size = tuple({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO} for _ in inputs)
    module = make().eval()
    same_results(module, torch.export.export(module, inputs, dynamic_shapes=any_size).module(), inputs)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])  # inductor needs a C++ compiler
@pytest.mark.parametrize("name", MODULES)
def test_modules_compile(name, backend):
    torch.manual_seed(0)
    make, inputs = MODULES[name]
    module = make().eval()
    same_results(module, torch.compile(module, backend=backend, fullgraph=True), inputs)


@pytest.mark.parametrize("need_weights", [False, True])
def test_a_gradient_for_each_sample_by_torch_func(need_weights):
    """By vmap over grad. Forward mode (jvp) needs `need_weights`: torch's fused kernel has none on the CPU."""
    module = MultiHeadAttention(8, 2)
    weights = dict(module.named_parameters())

    def loss(weights, x):
        h, _ = torch.func.functional_call(module, weights, (x[None],), {"need_weights": need_weights})
        return h.square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, X)
    for b, x in enumerate(X):
        for name, gradient in torch.func.grad(loss)(weights, x).items():
            assert torch.allclose(each[name][b], gradient, atol=1e-4)


def test_derivatives_of_every_kind_by_torch_func():
    scores, mask = torch.randn(4), torch.tensor([True, False, True, True])
    a = softargmax(scores)
    assert torch.allclose(torch.func.jacfwd(softargmax)(scores), a.diag() - a[:, None] * a, atol=1e-6)
    assert torch.allclose(*(f(softargmax)(scores) for f in (torch.func.jacfwd, torch.func.jacrev)), atol=1e-6)
    many = torch.func.vmap(lambda x: attend(x, x, x, mask=mask[None].expand(5, 4)[:, :1])[0])(X)
    assert torch.allclose(many, attend(X, X, X)[0], atol=1e-6)


def sure(tokens, rows):
    return torch.zeros(len(tokens), 5)


TRANSLATOR = translator_of(VOCABULARY, VOCABULARY)
BAD = {
    "odd number of positions": (lambda: sinusoidal_positions(5, 7), ValueError, "d_model=7 .*: use an even number"),
    "fewer than no position": (lambda: sinusoidal_positions(-1, 4), RuntimeError, "inconsistent with step sign"),
    "heads": (lambda: EncoderLayer(8, 3, 16), ValueError, "d_model=8 cannot be split into num_heads=3: use a divisor"),
    "no heads": (lambda: Encoder(1, 8, 0, 16), ValueError, "num_heads=0: use a divisor of 8"),
    "heads of a decoder": (lambda: DecoderLayer(8, 5, 16), ValueError, "num_heads=5: use a divisor of 8"),
    "no heads in a decoder": (lambda: Decoder(2, 8, 0, 16), ValueError, "num_heads=0: use a divisor of 8"),
    "dropout": (lambda: EncoderLayer(8, 2, 16, dropout=2), ValueError, "between 0 and 1, but got 2"),
    "dropout of a decoder": (lambda: Decoder(1, 8, 2, 16, dropout=-1), ValueError, "between 0 and 1, but got -1"),
    "dropout of a translator": (
        lambda: translator_of(VOCABULARY, VOCABULARY, 1.1), ValueError, "0 and 1, but got 1.1"),
    "options by place": (lambda: EncoderLayer(8, 2, 16, 0.1), TypeError, "takes 4 positional arguments"),
    "x too wide": (
        lambda: Encoder(1, 8, 2, 16)(torch.ones(1, 2, 6)), RuntimeError, "cannot be multiplied .2x6 and 8x18"),
    "memory too wide": (
        lambda: Decoder(1, 8, 2, 16)(X, torch.ones(2, 3, 4)), RuntimeError, "cannot be multiplied .6x4"),
    "another batch of memory": (
        lambda: Decoder(1, 8, 2, 16)(X, torch.ones(3, 4, 8)), RuntimeError, "must match the size"),
    "too few caches": (lambda: Decoder(2, 8, 2, 16)(X, X, caches=[None]), ValueError, "shorter"),
    "pool with numbers": (
        lambda: masked_pool(X, torch.ones(2, 5)), TypeError, "only implemented on integer and Boolean"),
    "pool with another mask": (
        lambda: masked_pool(X, torch.ones(2, 4) > 0), RuntimeError, "must match the size of tensor"),
    "pool of no element": (lambda: masked_pool(X[:, :0], torch.ones(2, 0) > 0), IndexError, "to have non-zero size"),
    "no beam": (lambda: beam_search(sure, 1, 2, beam=0), ValueError, "beam=0: keep at least 1 beginning"),
    "less than no beam": (lambda: beam_search(sure, 1, 2, beam=-3), ValueError, "beam=-3: keep at least 1 beginning"),
    "translated without a beam": (lambda: TRANSLATOR.translate("a b", beam=0), ValueError, "beam=0: keep at least 1"),
    "half a beam": (lambda: beam_search(sure, 1, 2, beam=1.5), TypeError, "must be int, not float"),
    "nothing to translate": (lambda: TRANSLATOR.translate(""), ValueError, "no words"),
    "blanks to translate": (lambda: TRANSLATOR.translate(" \t\n"), ValueError, "no words"),
    "unknown words": (
        lambda: TRANSLATOR.translate("a xylophone b zither"), ValueError, "unknown words: xylophone, zither"),
    "capitals": (lambda: TRANSLATOR.translate("A b"), ValueError, "unknown words: A$"),
    "punctuation": (lambda: TRANSLATOR.translate("a b."), ValueError, r"unknown words: b\.$"),
    "word number too large": (lambda: TRANSLATOR(WORDS + 100, WORDS), IndexError, "index out of range"),
    "negative word number": (lambda: TRANSLATOR(WORDS, WORDS - 100), IndexError, "index out of range"),
    "words as floats": (lambda: TRANSLATOR(WORDS.float(), WORDS), RuntimeError, "scalar types: Long, Int"),
}  # fmt: skip
for kind, numbers in (("floats", torch.ones(5, 5)), ("integers", torch.ones(2, 1, 5, dtype=torch.int64))):
    said = f"mask must be boolean .True = may attend., not {numbers.dtype}: use mask > 0"
    for ways in (False, True):
        BAD |= {
            f"{kind}, encoder, {ways}": (
                lambda m=numbers, w=ways: Encoder(1, 8, 2, 16)(X, mask=m, need_weights=w), ValueError, said),
            f"{kind}, decoder, {ways}": (
                lambda m=numbers, w=ways: Decoder(1, 8, 2, 16)(X, X, mask=m, need_weights=w), ValueError, said),
            f"{kind}, memory, {ways}": (
                lambda m=numbers, w=ways: Decoder(1, 8, 2, 16)(X, X, memory_mask=m, need_weights=w), ValueError, said),
            f"narrow {kind}, encoder, {ways}": (
                lambda m=numbers, w=ways: Encoder(1, 8, 2, 16)(X, mask=m[..., :4] > 0, need_weights=w),
                RuntimeError, "must match the size of tensor"),
        }  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_call_says_what_is_wrong(name):
    call, error, said = BAD[name]
    with pytest.raises(error, match=said):
        call()
