"""Attention, written out: from a set of scores to many heads.

Vectors are always rows: queries (…, T_q, d), keys (…, T_k, d), values (…, T_k, d_v). A mask is boolean, broadcastable
to (…, T_q, T_k), and True where a query *may attend*, as in torch's `scaled_dot_product_attention` (and the opposite of
`nn.MultiheadAttention`).

Shapes: B batch, T set size, H heads, d dimension.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


def softargmax(scores, beta=1.0, dim=-1):
    """Soft choice: exp(βs) / Σ exp(βs) along `dim`; same shape as `scores`. Known as softmax.

    `beta` is the inverse temperature: 0 gives equal weights; `math.inf` gives the hard choice, shared among ties.
    """
    if beta == math.inf:  # the limit: the largest scores share the weight
        beta, scores = 1.0, torch.where(scores == scores.amax(dim, keepdim=True), 0.0, -math.inf)
    scores = beta * scores
    largest = scores.detach().amax(dim, keepdim=True) if scores.numel() else 0.0
    powers = (scores - largest).exp()  # the largest power is 1, so none overflows
    return powers / powers.sum(dim, keepdim=True)


def hardargmax(scores, dim=-1):
    """Hard choice: one-hot at the largest score along `dim`, at the first of those that tie; same shape as `scores`."""
    chosen = scores.argmax(dim, keepdim=True)
    return torch.zeros_like(scores).scatter(dim, chosen, 1.0)


def entropy(a):
    """How spread out weights are: −Σ α log α along the last dimension, from 0 (one element has all the weight) to log T
    (all weights are equal).
    """
    return torch.special.entr(a).sum(dim=-1)


def check_sizes(queries, keys):
    """ValueError unless queries (…, T_q, d) and keys (…, T_k, d) have the same d."""
    d, d_k = queries.shape[-1], keys.shape[-1]
    if d_k != d:
        raise ValueError(f"queries of size {d} cannot be compared with keys of size {d_k}: use equal sizes")


def check_mask(mask):
    """ValueError unless `mask` is boolean."""
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean (True = may attend), not {mask.dtype}: use mask > 0")


def attend(queries, keys, values, *, beta=None, mask=None, weight_fn=softargmax):
    """Mix the values by how well their keys match each query: a = weight_fn(β q Kᵀ), h = a V.

    queries (…, T_q, d), keys (…, T_k, d), values (…, T_k, d_v). `beta` is the inverse temperature, 1/√d unless given.
    `mask` is boolean and broadcastable to (…, T_q, T_k); True = may attend. `weight_fn` turns scores into weights.
    Returns h (…, T_q, d_v) and the weights a (…, T_q, T_k). A query that may attend to nothing gets zeros for both.
    Masked keys may hold NaN; masked values may not, because 0 · NaN is NaN. ValueError if sizes do not fit, or if the
    mask is not boolean. Vaswani et al. (2017), Attention Is All You Need, equation 1.
    """
    check_sizes(queries, keys)
    if beta is None:
        beta = 1 / math.sqrt(queries.shape[-1])
    scores = beta * queries @ keys.transpose(-2, -1)  # (…, T_q, T_k)
    if mask is None:
        a = weight_fn(scores)
    else:
        check_mask(mask)
        lowest = torch.finfo(scores.dtype).min  # finite: softargmax turns a row of -inf into NaN
        a = weight_fn(scores.masked_fill(~mask, lowest)).masked_fill(~mask, 0.0)
    return a @ values, a  # (…, T_q, d_v), (…, T_q, T_k)


def padding_mask(lengths, size):
    """True for real elements: `lengths` (B,) of sets padded to `size` → (B, 1, size), a mask every query shares."""
    positions = torch.arange(size, device=lengths.device)
    return (positions < lengths[:, None])[:, None, :]


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, each in its own d_model / num_heads dimensions, and one map that mixes them.

    W_q, W_k, W_v make queries, keys and values for all heads; W_h (W_o in papers) combines what the heads return.
    `dropout` drops attention weights during training. ValueError if num_heads does not divide d_model.
    Vaswani et al. (2017), section 3.2.2.
    """

    def __init__(self, d_model, num_heads, *, dropout=0.0, bias=True):
        super().__init__()
        if num_heads < 1 or d_model % num_heads:
            raise ValueError(f"{d_model=} cannot be split into {num_heads=}: use a divisor of {d_model}")
        self.num_heads = num_heads
        self.W_q, self.W_k, self.W_v, self.W_h = (nn.Linear(d_model, d_model, bias=bias) for _ in range(4))
        self.dropout = nn.Dropout(dropout)
        for linear in (self.W_q, self.W_k, self.W_v, self.W_h):
            # PyTorch initialises W_q, W_k and W_v as one stacked matrix, so their entries are smaller.
            nn.init.xavier_uniform_(linear.weight, gain=1 if linear is self.W_h else 0.5**0.5)
            if bias:
                nn.init.zeros_(linear.bias)

    def forward(self, queries, keys=None, values=None, *, kv=None, mask=None, need_weights=False):
        """queries (B, T_q, d_model) → h (B, T_q, d_model), and the weights (B, H, T_q, T_k) or None.

        Without keys this is self-attention; without values the keys serve as values, too. `kv`, which `project_kv`
        returned earlier, replaces both. `mask` is broadcastable to (B, T_q, T_k), True = may attend, and holds for
        every head; one with four axes, (B, H, T_q, T_k), has a part for each head. Without `need_weights` PyTorch's
        fused kernel does the work, and NaN in a masked key or value then reaches the result. ValueError if there are
        not as many values as keys.
        """
        if kv is None:
            keys = queries if keys is None else keys
            kv = self.project_kv(keys, keys if values is None else values)
        q, (k, v) = self.split_heads(self.W_q(queries)), kv  # (B, H, T, d / H) each
        if k.shape[2] != v.shape[2]:  # the fused kernel would read beyond the shorter one
            raise ValueError(f"{k.shape[2]} keys and {v.shape[2]} values: each key needs one value")
        if mask is not None:
            check_mask(mask)
            mask = torch.atleast_2d(mask)  # (T_k,) is the same for every query
            if mask.dim() == 3:
                mask = mask[:, None]  # (B, 1, T_q, T_k) is the same for every head
        if need_weights:
            h, a = attend(q, k, v, mask=mask, weight_fn=lambda scores: self.dropout(softargmax(scores)))
        else:
            dropout = self.dropout.p if self.training else 0.0
            h, a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout), None
        h = h.transpose(1, 2).flatten(2)  # (B, T_q, d_model): the heads side by side
        return self.W_h(h), a

    def split_heads(self, x):
        """(B, T, d_model) → (B, H, T, d_model / H): each head gets its own part of every vector."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def project_kv(self, keys, values):
        """Keys and values of all heads, (B, H, T_k, d_model / H) each."""
        return self.split_heads(self.W_k(keys)), self.split_heads(self.W_v(values))
