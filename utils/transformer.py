"""The Transformer, built from attention: positions, encoder, decoder, and pooling over a set.

Shapes: B batch, T set size, H heads, d dimension. Masks: True = may attend.
"""

import math

import torch
from torch import nn

from utils.attention import MultiHeadAttention


def sinusoidal_positions(length, d_model, device=None):
    """E(p, 2i) = sin(p / 10000^(2i/d)), E(p, 2i+1) = cos(the same): (length, d_model), d_model even.

    Vaswani et al. (2017), section 3.5.
    """
    if d_model % 2:
        raise ValueError(f"{d_model=} has no pairs of sine and cosine: use an even number")
    position = torch.arange(length, device=device, dtype=torch.float32)[:, None]  # (T, 1)
    rate = torch.exp(torch.arange(0, d_model, 2, device=device) * (-math.log(10000) / d_model))  # (d/2,)
    angle = position * rate  # (T, d/2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)  # (T, d): sin, cos, sin, cos, …


class EncoderLayer(nn.Module):
    """Self-attention → add & norm → the same small MLP for every element (a convolution of size 1) → add & norm.

    `norm_first` normalises before each part instead of after the addition (the lecture and the 2017 paper normalise
    after it). `dropout` acts on attention weights, inside the MLP, and on what each part adds.
    """

    def __init__(self, d_model, num_heads, d_hidden, *, dropout=0.0, norm_first=False):
        super().__init__()
        self.norm_first = norm_first
        self.attention = MultiHeadAttention(d_model, num_heads, dropout=dropout)
        self.mlp = nn.Sequential(
            nn.Linear(d_model, d_hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(d_hidden, d_model)
        )
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, *, mask=None, need_weights=False):
        """x (B, T, d_model), mask broadcastable to (B, T, T) → h (B, T, d_model), and weights (B, H, T, T) or None."""
        if self.norm_first:
            h, a = self.attention(self.norm1(x), mask=mask, need_weights=need_weights)
            x = x + self.dropout(h)
            return x + self.dropout(self.mlp(self.norm2(x))), a
        h, a = self.attention(x, mask=mask, need_weights=need_weights)
        x = self.norm1(x + self.dropout(h))
        return self.norm2(x + self.dropout(self.mlp(x))), a


class Encoder(nn.Module):
    """A list of encoder layers; with `norm_first` one more normalisation at the end."""

    def __init__(self, num_layers, d_model, num_heads, d_hidden, *, dropout=0.0, norm_first=False):
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(d_model, num_heads, d_hidden, dropout=dropout, norm_first=norm_first)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(d_model) if norm_first else nn.Identity()

    def forward(self, x, *, mask=None, need_weights=False):
        """x (B, T, d_model) → h of the same shape, and the list of each layer's weights (None where not asked for)."""
        maps = []
        for layer in self.layers:
            x, a = layer(x, mask=mask, need_weights=need_weights)
            maps.append(a)
        return self.norm(x), maps


class KVCache:
    """The keys and values that a decoder layer has computed: for its own elements so far, and for the memory."""

    def __init__(self):
        self.length = 0  # own elements so far
        self.self_kv = self.cross_kv = None  # a pair each, of (B, H, T, d / H)

    def extend(self, k, v):
        """Append the keys and values of new elements; returns those of all elements so far."""
        if self.length:
            k, v = (torch.cat(pair, dim=2) for pair in zip(self.self_kv, (k, v)))
        self.self_kv, self.length = (k, v), k.shape[2]
        return k, v

    def reorder(self, rows):
        """Keep these rows of the batch, in this order."""
        if self.length:
            self.self_kv, self.cross_kv = ([part[rows] for part in pair] for pair in (self.self_kv, self.cross_kv))


class DecoderLayer(nn.Module):
    """Self-attention → add & norm → cross-attention → add & norm → the same MLP for every element → add & norm.

    In cross-attention only the queries come from x; keys and values come from `memory`, which the encoder returned.
    Options as in `EncoderLayer`.
    """

    def __init__(self, d_model, num_heads, d_hidden, *, dropout=0.0, norm_first=False):
        super().__init__()
        self.norm_first = norm_first
        self.attention = MultiHeadAttention(d_model, num_heads, dropout=dropout)
        self.cross_attention = MultiHeadAttention(d_model, num_heads, dropout=dropout)
        self.mlp = nn.Sequential(
            nn.Linear(d_model, d_hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(d_hidden, d_model)
        )
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.norm3 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, memory, *, mask=None, memory_mask=None, need_weights=False, cache=None):
        """x (B, T, d_model), memory (B, T_k, d_model) → h of x's shape, weights on the memory (B, H, T, T_k) or None.

        `mask` is for x's own elements, broadcastable to (B, T, T), `memory_mask` to (B, T, T_k). With a `KVCache`, x
        holds only what is new since the last call, and `mask` has columns for what came before as well.
        """
        if self.norm_first:
            x = x + self.dropout(self.self_attend(self.norm1(x), mask, cache))
            h, a = self.cross_attend(self.norm2(x), memory, memory_mask, need_weights, cache)
            x = x + self.dropout(h)
            return x + self.dropout(self.mlp(self.norm3(x))), a
        x = self.norm1(x + self.dropout(self.self_attend(x, mask, cache)))
        h, a = self.cross_attend(x, memory, memory_mask, need_weights, cache)
        x = self.norm2(x + self.dropout(h))
        return self.norm3(x + self.dropout(self.mlp(x))), a

    def self_attend(self, x, mask, cache):
        kv = cache and cache.extend(*self.attention.project_kv(x, x))
        return self.attention(x, kv=kv, mask=mask)[0]

    def cross_attend(self, x, memory, mask, need_weights, cache):
        if cache:
            cache.cross_kv = cache.cross_kv or self.cross_attention.project_kv(memory, memory)
        kv = cache and cache.cross_kv
        return self.cross_attention(x, memory, kv=kv, mask=mask, need_weights=need_weights)


class Decoder(nn.Module):
    """A list of decoder layers; with `norm_first` one more normalisation at the end."""

    def __init__(self, num_layers, d_model, num_heads, d_hidden, *, dropout=0.0, norm_first=False):
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(d_model, num_heads, d_hidden, dropout=dropout, norm_first=norm_first)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(d_model) if norm_first else nn.Identity()

    def forward(self, x, memory, *, caches=None, **options):
        """As `DecoderLayer.forward`, with one cache per layer; returns h and the list of each layer's weights."""
        maps = []
        for layer, cache in zip(self.layers, caches or [None] * len(self.layers), strict=True):
            x, a = layer(x, memory, cache=cache, **options)
            maps.append(a)
        return self.norm(x), maps


def masked_pool(h, mask):
    """Sum / √T and maximum over each set's T real elements, side by side: h (B, T, d), mask (B, T) → (B, 2d).

    A mean forgets how many elements agree, and a sum grows just because T does; a sum divided by √T lies between the
    two. An empty set gives zeros.
    """
    outside = ~mask[:, :, None]  # (B, T, 1)
    total = h.masked_fill(outside, 0.0).sum(1) / mask.sum(1, keepdim=True).clamp(min=1).sqrt()
    largest = h.masked_fill(outside, torch.finfo(h.dtype).min).amax(1)
    return torch.cat([total, largest.masked_fill(~mask.any(1, keepdim=True), 0.0)], dim=-1)  # (B, 2d)
