"""Attention, written out: from a set of scores to many heads.

Rows everywhere: queries (…, T_q, d), keys (…, T_k, d), values (…, T_k, d_v). A mask is boolean, broadcastable to
(…, T_q, T_k), and True where a query *may attend*, as in torch's `scaled_dot_product_attention` (and the opposite of
`nn.MultiheadAttention`).

Shapes: B batch, T set size, H heads, d dimension.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


def softargmax(scores, beta=1.0, dim=-1):
    """Soft choice: exp(βs) / Σ exp(βs) along `dim`; same shape as `scores`. Known as softmax.

    `beta` is the inverse temperature: 0 gives equal weights, `math.inf` the hard choice, shared among equals.
    """
    if beta == math.inf:  # the limit: the largest scores share the weight
        beta, scores = 1.0, torch.where(scores == scores.amax(dim, keepdim=True), 0.0, -math.inf)
    scores = beta * scores
    largest = scores.detach().amax(dim, keepdim=True) if scores.numel() else 0.0
    powers = (scores - largest).exp()  # the largest power is 1: none overflows
    return powers / powers.sum(dim, keepdim=True)


def hardargmax(scores, dim=-1):
    """Hard choice: one-hot at the largest score along `dim`, at the first of equals; same shape as `scores`."""
    chosen = scores.argmax(dim, keepdim=True)
    return torch.zeros_like(scores).scatter(dim, chosen, 1.0)


def entropy(a):
    """How spread out weights are: −Σ α log α along the last dimension, from 0 (one has all) to log T (all equal)."""
    return torch.special.entr(a).sum(dim=-1)


def attend(queries, keys, values, *, beta=None, mask=None, choose=softargmax):
    """Mix the values by how well their keys match each query: a = choose(β q Kᵀ), h = a V.

    queries (…, T_q, d), keys (…, T_k, d), values (…, T_k, d_v), mask boolean and broadcastable to (…, T_q, T_k), True =
    may attend. `beta` is the inverse temperature, 1/√d unless given. `choose` turns scores into weights.
    Returns h (…, T_q, d_v) and the weights a (…, T_q, T_k). A query that may attend to nothing gets zeros for both.
    Masked keys may hold NaN, masked values may not: 0 · NaN is NaN. ValueError for other sizes and a mask of numbers.
    Vaswani et al. (2017), Attention Is All You Need, equation 1.
    """
    d, d_k = queries.shape[-1], keys.shape[-1]
    if d_k != d:
        raise ValueError(f"queries of size {d} cannot be compared with keys of size {d_k}: use equal sizes")
    if beta is None:
        beta = 1 / math.sqrt(d)
    scores = beta * queries @ keys.transpose(-2, -1)  # (…, T_q, T_k)
    if mask is None:
        a = choose(scores)
    else:
        if mask.dtype != torch.bool:
            raise ValueError(f"mask must be boolean (True = may attend), not {mask.dtype}: use mask > 0")
        lowest = torch.finfo(scores.dtype).min  # finite: of a row of -inf, softargmax makes NaN
        a = choose(scores.masked_fill(~mask, lowest)).masked_fill(~mask, 0.0)
    return a @ values, a  # (…, T_q, d_v), (…, T_q, T_k)


def padding_mask(lengths, size):
    """True for real elements: `lengths` (B,) of sets padded to `size` → (B, 1, size), a mask every query shares."""
    positions = torch.arange(size, device=lengths.device)
    return (positions < lengths[:, None])[:, None, :]


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, each in its own d_model / num_heads dimensions, and one map that mixes them.

    W_q, W_k, W_v are stacked in `in_proj` (3 d_model × d_model); `out_proj` is the lecture's W_h, the papers' W_o.
    `dropout` drops attention weights while training. ValueError if num_heads does not divide d_model.
    Vaswani et al. (2017), section 3.2.2.
    """

    def __init__(self, d_model, num_heads, *, dropout=0.0, bias=True):
        super().__init__()
        if num_heads < 1 or d_model % num_heads:
            raise ValueError(f"{d_model=} cannot be split into {num_heads=}: use a divisor of {d_model}")
        self.num_heads = num_heads
        self.dropout = nn.Dropout(dropout)
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=bias)
        self.out_proj = nn.Linear(d_model, d_model, bias=bias)
        for layer in (self.in_proj, self.out_proj):
            nn.init.xavier_uniform_(layer.weight)
            if bias:
                nn.init.zeros_(layer.bias)

    def forward(self, queries, keys=None, values=None, *, mask=None, need_weights=False):
        """queries (B, T_q, d_model) → h (B, T_q, d_model), and the weights (B, H, T_q, T_k) or None.

        Without keys it is self-attention; without values the keys serve as values. mask: broadcastable to
        (B, T_q, T_k), True = may attend, the same for every head (with four axes, one for each). Without weights
        torch's fused kernel does the work; NaN in what is masked comes through it.
        """
        if keys is None:
            q, k, v = self.project(queries, 0, 3)  # one product instead of three
        elif values is None:
            [q], [k, v] = self.project(queries, 0, 1), self.project(keys, 1, 3)
        else:
            inputs = queries, keys, values
            q, k, v = (self.project(x, part, part + 1)[0] for part, x in enumerate(inputs))
        return self.mix(q, k, v, mask=mask, need_weights=need_weights)

    def project(self, x, start, stop):
        """x (B, T, d_model) times those of W_q, W_k, W_v that start:stop names: each (B, H, T, d / H)."""
        d_model = x.shape[-1]
        rows = slice(start * d_model, stop * d_model)
        bias = None if self.in_proj.bias is None else self.in_proj.bias[rows]
        parts = F.linear(x, self.in_proj.weight[rows], bias).chunk(stop - start, dim=-1)
        return [part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts]

    def mix(self, q, k, v, *, mask=None, need_weights=False):
        """Heads of queries, keys and values (B, H, T, d / H) → what `forward` returns."""
        if k.shape[2] != v.shape[2]:  # the fused kernel would read beyond the shorter one
            raise ValueError(f"{k.shape[2]} keys and {v.shape[2]} values: each key needs one value")
        if mask is not None:
            if mask.dtype != torch.bool:
                raise ValueError(f"mask must be boolean (True = may attend), not {mask.dtype}: use mask > 0")
            mask = torch.atleast_2d(mask)  # (T_k,) is the same for every query
            mask = mask[:, None] if mask.dim() == 3 else mask  # (B, 1, T_q, T_k): the same for every head
        if need_weights:
            h, a = attend(q, k, v, mask=mask, choose=lambda scores: self.dropout(softargmax(scores)))
        else:
            dropout = self.dropout.p if self.training else 0.0
            h, a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout), None
        return self.out_proj(h.transpose(1, 2).flatten(2)), a  # (B, T_q, d_model)
