"""Attention against torch's own, and the promises about masks."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from utils import twins
from utils.attention import MultiHeadAttention, attend, entropy, hardargmax, padding_mask, softargmax


def close(ours, theirs, dtype=torch.float32):
    """Equal to within the tolerance of `dtype`, relative to the largest entry."""
    return (ours - theirs).abs().max() <= twins.TOLERANCE[dtype] * theirs.abs().max()


def test_softargmax_by_hand():
    scores = torch.tensor([3.0, 7.0, 9.0], dtype=torch.float64)
    powers = scores.exp()
    assert torch.allclose(softargmax(scores), powers / powers.sum())
    assert torch.allclose(softargmax(scores, beta=0.0), torch.full((3,), 1 / 3, dtype=torch.float64))
    assert torch.equal(softargmax(scores, beta=1e4), hardargmax(scores))
    assert torch.allclose(softargmax(torch.stack([scores, -scores]), 2.0, dim=0).sum(0), torch.ones(3).double())


def test_softargmax_has_the_gradient_of_torch():
    scores = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(softargmax, scores)


def test_hardargmax_takes_the_first_of_equals():
    assert hardargmax(torch.tensor([1.0, 5.0, 5.0])).tolist() == [0.0, 1.0, 0.0]
    assert hardargmax(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), dim=0).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_entropy():
    assert torch.allclose(entropy(torch.full((2, 4), 0.25)), torch.tensor(4.0).log())
    assert entropy(torch.tensor([[0.0, 1.0, 0.0]])).tolist() == [0.0]


def test_attend_equals_torch():
    q, k, v = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 6)
    mask = torch.rand(2, 1, 4, 5) > 0.3
    mask[..., 0] = True
    h, a = attend(q, k, v, mask=mask)
    assert close(h, F.scaled_dot_product_attention(q, k, v, attn_mask=mask), torch.float32)
    assert (a.sum(-1) - 1).abs().max() < 1e-6 and not a[~mask.expand_as(a)].any()
    assert close(attend(q, k, v, beta=2.0)[0], F.scaled_dot_product_attention(q, k, v, scale=2.0), torch.float32)
    assert torch.equal(attend(q, k, v, choose=hardargmax)[1].sum(-1), torch.ones(2, 3, 4))


@pytest.mark.parametrize("need_weights", [False, True])
def test_nothing_to_attend_gives_zeros_and_no_nan(need_weights):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, requires_grad=True)
    mask = torch.ones(2, 3, 3, dtype=torch.bool)
    mask[1, 2] = False
    h, a = attend(x, x, x, mask=mask)
    assert not h[1, 2].any() and not a[1, 2].any()
    attention = MultiHeadAttention(8, 2)
    nn.init.normal_(attention.out_proj.bias)
    h, _ = attention(x, mask=mask, need_weights=need_weights)
    assert torch.allclose(h[1, 2], attention.out_proj.bias)
    h.sum().backward()
    assert x.grad.isfinite().all()


def test_wrong_sizes_say_what_is_needed():
    with pytest.raises(ValueError, match="queries of size 3 cannot be compared with keys of size 4"):
        attend(torch.ones(2, 3), torch.ones(2, 4), torch.ones(2, 4))
    with pytest.raises(ValueError, match="d_model=30 cannot be split into num_heads=4: use a multiple of 4"):
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
        assert twins.agree(twins.differences(ours, theirs, call_ours, call_theirs, *inputs))
        for dtype, mine, its in zip(twins.TOLERANCE, maps[::2], maps[1::2], strict=True):
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
    assert [name for name, _ in attention.named_parameters()] == ["in_proj.weight", "out_proj.weight"]


def test_dropout_only_while_training():
    torch.manual_seed(0)
    attention, x = MultiHeadAttention(8, 2, dropout=0.5), torch.randn(2, 3, 8)
    settled = attention.eval()(x)[0]
    assert torch.allclose(settled, attention(x, need_weights=True)[0], atol=1e-6)
    for need_weights in (False, True):
        assert not torch.allclose(attention.train()(x, need_weights=need_weights)[0], settled, atol=1e-3)
