"""The encoder against torch's own, and what sets, positions and padding must and must not change."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from utils import parity
from utils.attention import MultiHeadAttention, attend, padding_mask, softargmax
from utils.classifiers import LectureClassifier, ReviewClassifier, WordConvolution
from utils.tests.taught import translator_of
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
        found = parity.max_relative_error(
            EncoderLayer(d_model, heads, 48, norm_first=norm_first),
            nn.TransformerEncoderLayer(d_model, heads, 48, dropout=0.0, batch_first=True, norm_first=norm_first),
            lambda ours, x, mask=mask: ours(x, mask=mask, need_weights=need_weights)[0],
            lambda theirs, x, hidden=hidden: theirs(x, src_key_padding_mask=hidden),
            torch.randn(batch, size, d_model),
        )
        assert parity.within_tolerance(found), found


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_is_equivariant_and_returns_every_map(norm_first):
    torch.manual_seed(0)
    encoder, x, order = Encoder(3, 16, 4, 32, norm_first=norm_first), torch.randn(2, 7, 16), torch.randperm(7)
    h, maps = encoder(x, need_weights=True)
    assert torch.allclose(encoder(x[:, order])[0], h[:, order], atol=1e-5)
    assert [a.shape for a in maps] == [(2, 4, 7, 7)] * 3 and encoder(x)[1] == [None] * 3


@pytest.mark.parametrize("norm_first", [None, False, True])
def test_a_stack_equals_torch(norm_first):
    """Post-norm unless asked for; a pre-norm stack ends in a norm of its own."""
    first, ours = bool(norm_first), {} if norm_first is None else {"norm_first": norm_first}
    theirs = {"dropout": 0.0, "batch_first": True, "norm_first": first}
    final = nn.LayerNorm(16) if first else None
    layer, stack = nn.TransformerEncoderLayer(16, 4, 32, **theirs), Encoder(2, 16, 4, 32, **ours)
    found = parity.max_relative_error(
        stack,
        nn.TransformerEncoder(layer, 2, norm=final, enable_nested_tensor=False),
        lambda ours, x: ours(x)[0],
        lambda theirs, x: theirs(x),
        torch.randn(3, 5, 16),
    )
    assert parity.within_tolerance(found)
    layer, stack = nn.TransformerDecoderLayer(16, 4, 32, **theirs), Decoder(2, 16, 4, 32, **ours)
    found = parity.max_relative_error(
        stack,
        nn.TransformerDecoder(layer, 2, norm=final),
        lambda ours, x, memory: ours(x, memory)[0],
        lambda theirs, x, memory: theirs(x, memory),
        torch.randn(3, 5, 16),
        torch.randn(3, 4, 16),
    )
    assert parity.within_tolerance(found)
    x = torch.randn(1, 3, 16)
    layers = EncoderLayer(16, 4, 32, **ours)(x), DecoderLayer(16, 4, 32, **ours)(x, x)
    assert [a for _, a in layers] == [None, None]  # no weights unless asked for
    assert EncoderLayer(16, 4, 32).norm_first is DecoderLayer(16, 4, 32).norm_first is False


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
    wanted = torch.tensor([[4 / 2**0.5, -6 / 2**0.5, 3, -2], [0, 0, 0, 0]])
    assert torch.allclose(masked_pool(h, mask), wanted)


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
        wanted = torch.cat([x[real].sum(0) / real.sum().sqrt(), x[real].amax(0)]) if real.any() else torch.zeros(6)
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
def test_each_dropout_of_an_encoder_layer_is_on_its_path_and_on_no_other(norm_first, part):
    torch.manual_seed(0)
    layer, x = EncoderLayer(8, 2, 16, dropout=0.5, norm_first=norm_first), torch.randn(2, 3, 8)
    assert [name for name, module in layer.named_modules() if isinstance(module, nn.Dropout)] == list(ADDED)
    nn.init.normal_(layer.attention.W_h.bias)
    norm1, norm2 = (nn.Identity(), layer.norm2) if norm_first else (layer.norm1, layer.norm2)
    bias = layer.attention.W_h.bias.expand_as(x)  # of attention without weights this is left
    attended = layer.attention.eval()(layer.norm1(x) if norm_first else x)[0]
    attended = {"attention.dropout": bias, "mlp.2": attended, "dropout": torch.zeros_like(x)}[part]
    y = norm1(x + attended)
    hidden = layer.mlp.eval()(layer.norm2(y) if norm_first else y)
    hidden = {"attention.dropout": hidden, "mlp.2": layer.mlp[3].bias, "dropout": torch.zeros_like(x)}[part]
    wanted = y + hidden if norm_first else norm2(y + hidden)
    assert torch.allclose(with_everything_dropped(layer, part)(x)[0], wanted, atol=1e-5)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("part", ["attention.dropout", "cross_attention.dropout", "mlp.2", "dropout"])
def test_each_dropout_of_a_decoder_layer_is_on_its_path_and_on_no_other(norm_first, part):
    torch.manual_seed(0)
    layer = DecoderLayer(8, 2, 16, dropout=0.5, norm_first=norm_first)
    x, memory = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    names = ["attention.dropout", "cross_attention.dropout", "mlp.2", "dropout"]
    assert [name for name, module in layer.named_modules() if isinstance(module, nn.Dropout)] == names
    for attention in (layer.attention, layer.cross_attention):
        nn.init.normal_(attention.W_h.bias)
    layer.eval()
    y = x
    ways = (
        ("attention.dropout", layer.norm1, lambda z: layer.attention(z)[0], layer.attention.W_h.bias),
        ("cross_attention.dropout", layer.norm2, lambda z: layer.cross_attention(z, memory)[0],
         layer.cross_attention.W_h.bias),
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


TRANSLATOR = translator_of(VOCABULARY, VOCABULARY)
BAD = {  # a call, and what our message must say
    "odd number of positions": (lambda: sinusoidal_positions(5, 7), "d_model=7 .*: use an even number"),
    "heads": (lambda: EncoderLayer(8, 3, 16), "d_model=8 cannot be split into num_heads=3: use a divisor"),
    "heads of a decoder": (lambda: DecoderLayer(8, 5, 16), "num_heads=5: use a divisor of 8"),
    "too few caches": (lambda: Decoder(2, 8, 2, 16)(X, X, caches=[None]), "shorter"),
    "no beam": (lambda: TRANSLATOR.translate("a b", beam=0), "beam=0: keep at least 1 beginning"),
    "nothing to translate": (lambda: TRANSLATOR.translate(" \t\n"), "no words"),
    "unknown words": (lambda: TRANSLATOR.translate("a xylophone B"), "unknown words: xylophone, B"),
    "a special token": (lambda: TRANSLATOR.translate("a <end>"), "unknown words: <end>"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_call_says_what_is_wrong(name):
    call, said = BAD[name]
    with pytest.raises(ValueError, match=said):
        call()
