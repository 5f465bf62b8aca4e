"""Attention against torch's own, and the promises about masks."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from utils import parity
from utils.attention import MultiHeadAttention, attend, entropy, hardargmax, padding_mask, softargmax


def close(ours, theirs, dtype=torch.float32):
    """Equal to within the tolerance of `dtype`, relative to the largest entry."""
    return (ours - theirs).abs().max() <= parity.TOLERANCE[dtype] * theirs.abs().max()


def test_softargmax_by_hand():
    scores = torch.tensor([3.0, 7.0, 9.0], dtype=torch.float64)
    powers = scores.exp()
    assert torch.allclose(softargmax(scores), powers / powers.sum())
    assert torch.allclose(softargmax(scores, beta=0.0), torch.full((3,), 1 / 3, dtype=torch.float64))
    assert torch.equal(softargmax(scores, beta=1e4), hardargmax(scores))
    assert torch.equal(softargmax(scores, beta=math.inf), hardargmax(scores))
    assert softargmax(torch.tensor([7.0, 9.0, 9.0]), math.inf).tolist() == [0, 0.5, 0.5]  # the limit shares
    assert softargmax(torch.tensor([7.0, math.nan]), math.inf).isnan().all()
    assert torch.allclose(softargmax(torch.stack([scores, -scores]), 2.0, dim=0).sum(0), torch.ones(3).double())
    table = torch.tensor([[1.0, 5.0, 2.0], [7.0, 3.0, 7.0]])
    for dim in (0, 1):  # the limit is taken along one dimension
        assert torch.allclose(softargmax(table, math.inf, dim), softargmax(table, 1e4, dim))


def test_softargmax_has_the_gradient_of_torch():
    scores = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(softargmax, scores)


def test_hardargmax_takes_the_first_of_equals():
    assert hardargmax(torch.tensor([1.0, 5.0, 5.0])).tolist() == [0.0, 1.0, 0.0]
    assert hardargmax(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), dim=0).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_entropy():
    assert torch.allclose(entropy(torch.full((2, 4), 0.25)), torch.tensor(4.0).log())
    assert entropy(torch.tensor([[0.0, 1.0, 0.0]])).tolist() == [0.0]
    assert entropy(torch.full((2, 3, 4), 0.25)).shape == (2, 3)


def test_attend_equals_torch():
    q, k, v = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 6)
    mask = torch.rand(2, 1, 4, 5) > 0.3
    mask[..., 0] = True
    h, a = attend(q, k, v, mask=mask)
    assert close(h, F.scaled_dot_product_attention(q, k, v, attn_mask=mask), torch.float32)
    assert (a.sum(-1) - 1).abs().max() < 1e-6 and not a[~mask.expand_as(a)].any()
    assert close(attend(q, k, v, beta=2.0)[0], F.scaled_dot_product_attention(q, k, v, scale=2.0), torch.float32)
    assert torch.equal(attend(q, k, v, weight_fn=hardargmax)[1].sum(-1), torch.ones(2, 3, 4))


@pytest.mark.parametrize("need_weights", [False, True])
def test_nothing_to_attend_gives_zeros_and_no_nan(need_weights):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, requires_grad=True)
    mask = torch.ones(2, 3, 3, dtype=torch.bool)
    mask[1, 2] = False
    h, a = attend(x, x, x, mask=mask)
    assert not h[1, 2].any() and not a[1, 2].any()
    attend(
        x, x, x, mask=mask, weight_fn=lambda scores: scores if scores.isfinite().all() else pytest.fail("not finite")
    )
    attention = MultiHeadAttention(8, 2)
    nn.init.normal_(attention.W_h.bias)
    h, _ = attention(x, mask=mask, need_weights=need_weights)
    assert torch.allclose(h[1, 2], attention.W_h.bias)
    h.sum().backward()
    assert x.grad.isfinite().all()


def test_wrong_sizes_say_what_is_needed():
    with pytest.raises(ValueError, match="queries of size 3 cannot be compared with keys of size 4"):
        attend(torch.ones(2, 3), torch.ones(2, 4), torch.ones(2, 4))
    with pytest.raises(ValueError, match="d_model=30 cannot be split into num_heads=4: use a divisor of 30"):
        MultiHeadAttention(30, 4)


def test_padding_mask():
    assert padding_mask(torch.tensor([2, 0]), 3).tolist() == [[[True, True, False]], [[False, False, False]]]


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("kind", ["self", "cross"])
def test_multi_head_attention_equals_torch(kind, need_weights):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    for size, heads, masked in itertools.product((1, 7, 40), (1, 4), (False, True)):
        batch, t_k = int(torch.randint(1, 5, (), generator=generator)), size if kind == "self" else size + 3
        d_model = heads * int(torch.randint(1, 65, (), generator=generator))
        ours = MultiHeadAttention(d_model, heads)
        theirs = nn.MultiheadAttention(d_model, heads, batch_first=True)
        mask = padding_mask(torch.randint(1, t_k + 1, (batch,), generator=generator), t_k) if masked else None
        hidden = ~mask[:, 0] if masked else None  # torch's own: True = may NOT attend
        maps = []

        def call_ours(module, x, *memory, mask=mask, maps=maps):
            h, a = module(x, *memory, mask=mask, need_weights=need_weights)
            maps.append(a)
            return h

        def call_theirs(module, x, *memory, hidden=hidden, maps=maps):
            memory = memory or (x, x)
            h, a = module(x, *memory, key_padding_mask=hidden, average_attn_weights=False)
            maps.append(a)
            return h

        inputs = [torch.randn(batch, size, d_model)] + [torch.randn(batch, t_k, d_model)] * 2 * (kind == "cross")
        assert parity.within_tolerance(parity.max_relative_error(ours, theirs, call_ours, call_theirs, *inputs))
        for dtype, mine, its in zip(parity.TOLERANCE, maps[::2], maps[1::2], strict=True):
            assert mine is None if not need_weights else close(mine, its, dtype)


def test_a_two_dimensional_mask_holds_for_every_review_and_head():
    attention, x = MultiHeadAttention(8, 2), torch.randn(3, 4, 8)
    causal = torch.ones(4, 4, dtype=torch.bool).tril()
    h, a = attention(x, mask=causal, need_weights=True)
    assert not a.masked_select(~causal).any()
    assert torch.allclose(h, attention(x, mask=causal.expand(3, 4, 4))[0], atol=1e-6)


def test_keys_serve_as_values_and_bias_is_optional():
    attention = MultiHeadAttention(8, 2, bias=False)
    x, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    assert torch.allclose(attention(x, memory)[0], attention(x, memory, memory)[0], atol=1e-6)
    assert [name for name, _ in attention.named_parameters()] == [f"W_{letter}.weight" for letter in "qkvh"]
    fresh = MultiHeadAttention(8, 2)
    assert not any(parameter.any() for name, parameter in fresh.named_parameters() if "bias" in name)  # to begin with


def test_dropout_only_while_training():
    torch.manual_seed(0)
    attention, x = MultiHeadAttention(8, 2, dropout=0.5), torch.randn(2, 3, 8)
    settled = attention.eval()(x)[0]
    assert torch.allclose(settled, attention(x, need_weights=True)[0], atol=1e-6)
    for need_weights in (False, True):
        assert not torch.allclose(attention.train()(x, need_weights=need_weights)[0], settled, atol=1e-3)


# What may be asked of attention, and what is refused. Sizes are small; zero and one are among them.
SIZES = st.integers(0, 4)


def laid_out(x, how):
    """The same numbers in memory as they come, transposed, or every second one of a larger tensor."""
    if how == "transposed":
        return x.transpose(-1, -2).contiguous().transpose(-1, -2)
    return x.repeat_interleave(2, dim=-1)[..., ::2] if how == "strided" else x


@st.composite
def sets(draw, dtype=torch.float64):
    """Queries (B, T_q, d), keys and values (B, T_k, d), and a mask that broadcasts to (B, T_q, T_k), or None."""
    B, T_q, T_k, half = (draw(size) for size in (SIZES, SIZES, SIZES, st.integers(1, 3)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    q, k, v = (torch.randn(B, T, 2 * half, dtype=dtype, generator=generator) for T in (T_q, T_k, T_k))
    how = draw(st.sampled_from(["plain", "transposed", "strided", "expanded"]))
    if how == "expanded":  # one set for the whole batch, no memory of its own
        q, k, v = (torch.randn(1, *x.shape[1:], dtype=dtype, generator=generator).expand(x.shape) for x in (q, k, v))
    shape = (B, T_q, T_k)[draw(st.integers(0, 3)) :]
    shape = [size if draw(st.booleans()) else 1 for size in shape]
    mask = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    return *(laid_out(x, how) for x in (q, k, v)), draw(st.sampled_from([mask, None]))


def by_loops(q, k, v, mask, beta):
    """`attend` for one set, from its definition, in Python's own numbers."""
    h, a = torch.zeros(len(q), v.shape[1]).double(), torch.zeros(len(q), len(k)).double()
    for i, query in enumerate(q.tolist()):
        may = [j for j in range(len(k)) if mask is None or mask[i, j]]
        scores = {j: beta * sum(map(math.prod, zip(query, k[j].tolist()))) for j in may}
        powers = {j: math.exp(scores[j] - max(scores.values())) for j in may}
        for j in may:
            a[i, j] = powers[j] / sum(powers.values())
            h[i] += a[i, j] * v[j]
    return h, a


@given(sets(), st.sampled_from([None, 0.0, 0.5, 3.0, 1e4]))
def test_attend_is_its_definition_in_loops(inputs, beta):
    q, k, v, mask = inputs
    h, a = attend(q, k, v, beta=beta, mask=mask)
    whole = None if mask is None else mask.expand(len(q), q.shape[1], k.shape[1])
    for b in range(len(q)):
        each = (q[b], k[b], v[b], None if mask is None else whole[b])
        for ours, wanted in zip((h[b], a[b]), by_loops(*each, 1 / math.sqrt(q.shape[2]) if beta is None else beta)):
            assert torch.allclose(ours, wanted, atol=1e-9)
    assert h.shape == q.shape and a.shape == (len(q), q.shape[1], k.shape[1])


@given(sets())
def test_both_ways_through_multi_head_attention_are_one(inputs):
    q, k, v, mask = inputs
    torch.manual_seed(0)
    attention, results = MultiHeadAttention(q.shape[2], 2).double(), []
    for need_weights in (False, True):
        x = [one.detach().clone().requires_grad_() for one in (q, k, v)]
        h, a = attention(*x, mask=mask, need_weights=need_weights)
        results.append([h, *torch.autograd.grad(h.square().sum(), [*x, *attention.parameters()])])
    for fused, plain in zip(*results):
        assert fused.isfinite().all() and torch.allclose(fused, plain, atol=1e-9)
    assert a.shape == (len(q), 2, q.shape[1], k.shape[1]) and (mask is None or not a[~mask_of_heads(mask, a)].any())


def mask_of_heads(mask, a):
    return mask.expand(len(a), *a.shape[2:])[:, None].expand(a.shape)


@pytest.mark.parametrize("need_weights", [False, True])
def test_a_mask_may_have_one_axis_or_four(need_weights):
    torch.manual_seed(0)
    attention, x = MultiHeadAttention(8, 2), torch.randn(3, 4, 8)
    last = torch.tensor([True, True, True, False])
    h, _ = attention(x, mask=last, need_weights=need_weights)
    assert torch.allclose(h, attention(x, mask=last.expand(3, 4, 4))[0], atol=1e-6)
    heads = torch.stack([last.expand(4, 4), torch.ones(4, 4, dtype=torch.bool)])  # a mask for each of the two heads
    h, _ = attention(x, mask=heads[None], need_weights=need_weights)
    _, a = attention(x, mask=heads.expand(3, 2, 4, 4), need_weights=True)
    assert not a[:, 0, :, 3].any() and a[:, 1, :, 3].all()
    assert torch.allclose(h, attention(x, mask=heads.expand(3, 2, 4, 4), need_weights=True)[0], atol=1e-6)


@given(
    st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=6),
    st.sampled_from([0.0, 2.0**-99, 1.0, 2.0**27]),
)
def test_softargmax_of_any_scores_is_weights_in_their_order(scores, beta):
    scores = torch.tensor(scores)
    a = softargmax(scores, beta)
    assert a.isfinite().all() and (a >= 0).all() and abs(a.sum() - 1) < 1e-5
    assert (a[scores.argsort()].diff() >= 0).all()  # a higher score has never less
    if beta == 0:
        assert torch.allclose(a, torch.tensor(1 / len(scores)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_is_masked_is_masked_in_every_precision(dtype):
    q, k, v = torch.full((3, 2, 4), 60.0, dtype=dtype).unbind()
    k[1] = -60.0  # what may be attended to has by far the lowest score
    h, a = attend(q, k, v, mask=torch.tensor([False, True]))
    assert a.tolist() == [[0, 1]] * 2 and h.dtype == dtype and torch.equal(h, v)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_stays_out_of_masked_scores_and_goes_through_masked_values(bad):
    """As `attend` documents: 0 · NaN is NaN."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 4, 8).unbind()
    mask = torch.tensor([True, True, True, False])
    spoilt, clean = torch.cat([k[:3], torch.full((1, 8), bad)]), attend(q, k[:3], v[:3])[0]
    assert torch.allclose(attend(q, spoilt, v, mask=mask)[0], clean, atol=1e-6)
    assert attend(q, k, torch.cat([v[:3], torch.full((1, 8), bad)]), mask=mask)[0].isnan().all()


def test_gradients_are_finite_with_large_scores_and_with_nothing_to_attend_to():
    x = (1e4 * torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))).requires_grad_()
    mask = torch.tensor([[True, False, False], [False, False, False], [True, True, True]])
    h, a = attend(x, x, x, mask=mask)
    assert all(g.isfinite().all() for g in torch.autograd.grad(h.sum() + a.square().sum(), x))


ATTENTION, X = MultiHeadAttention(8, 2), torch.randn(2, 3, 8)
IDS, SAID = (
    torch.ones(3, 3, dtype=torch.int64),
    "mask must be boolean .True = may attend., not torch.int64: use mask > 0",
)
BAD = {  # a call, and what our message must say; what PyTorch refuses is left to PyTorch's own words
    "other size of keys": (lambda: attend(X, X[..., :4], X), "queries of size 8 .* keys of size 4: use equal"),
    "values shorter": (lambda: ATTENTION(X, X, X[:, :2], need_weights=True), "3 keys and 2 values"),
    "values longer, fused": (lambda: ATTENTION(X, X[:, :2], X), "2 keys and 3 values: each key needs"),
    "one value, fused": (lambda: ATTENTION(X, X, X[:, :1]), "3 keys and 1 values"),
    "odd number of heads": (lambda: MultiHeadAttention(8, 3), "d_model=8 .* num_heads=3: use a divisor of 8"),
    "no head": (lambda: MultiHeadAttention(8, 0), "d_model=8 .* num_heads=0: use a divisor of 8"),
    "fewer than no head": (lambda: MultiHeadAttention(8, -2), "num_heads=-2: use a divisor of 8"),
    "mask of ids": (lambda: attend(X, X, X, mask=IDS), SAID),
    "mask of ids, fused": (lambda: ATTENTION(X, mask=IDS), SAID),
    "mask of ids, with weights": (lambda: ATTENTION(X, mask=IDS, need_weights=True), SAID),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_call_says_what_is_wrong(name):
    call, said = BAD[name]
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize(
    "shape", [(4,), (2, 4), (4, 3), (3, 3, 3), (2, 3, 4), (5, 1, 3, 3), (2, 3, 3, 3), (1, 1, 1, 3, 3)]
)
def test_a_mask_that_does_not_fit_is_refused_on_both_paths(shape, need_weights):
    with pytest.raises(RuntimeError):
        ATTENTION(X, mask=torch.ones(shape) > 0, need_weights=need_weights)


def test_what_was_projected_before_gives_the_same():
    memory = torch.randn(2, 5, 8)
    kv = ATTENTION.project_kv(memory, memory)
    for need_weights in (False, True):
        for one, other in zip(
            ATTENTION(X, memory, need_weights=need_weights), ATTENTION(X, kv=kv, need_weights=need_weights)
        ):
            assert (one is other is None) or one.equal(other)


def test_the_first_weights_are_drawn_as_pytorch_draws_its_stacked_ones():
    theirs = nn.MultiheadAttention(64, 4)
    ours = MultiHeadAttention(64, 4)
    bound = theirs.in_proj_weight.abs().max().item()
    for linear in (ours.W_q, ours.W_k, ours.W_v):
        assert abs(linear.weight.abs().max().item() / bound - 1) < 0.01
    assert abs(ours.W_h.weight.abs().max().item() / (6 / 128) ** 0.5 - 1) < 0.01  # Xavier's bound
    assert ours(torch.randn(1, 3, 64))[1] is None  # no weights unless asked for
