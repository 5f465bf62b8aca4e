"""The Transformer, built from attention: positions, the encoder, and the review classifier.

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

    `norm_first` normalises before each part instead of after the addition (the lecture's and the 2017 paper's way is
    after). `dropout` acts on attention weights, inside the MLP, and on what each part adds.
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


def masked_pool(h, mask):
    """The mean and the largest entry over each set's real elements, side by side: h (B, T, d), mask (B, T) → (B, 2d).

    An empty set gives zeros.
    """
    outside = ~mask[:, :, None]  # (B, T, 1)
    mean = h.masked_fill(outside, 0.0).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    largest = h.masked_fill(outside, torch.finfo(h.dtype).min).amax(1)
    return torch.cat([mean, largest.masked_fill(~mask.any(1, keepdim=True), 0.0)], dim=-1)  # (B, 2d)


class ReviewClassifier(nn.Module):
    """Words → vectors (+ positions) → encoder → pool over the set → two scores: was the film liked or not?

    Word number 0 is padding: no query attends to it and the pooling skips it. `dropout` acts on the embedded words and
    on the pooled vector. Word vectors are multiplied by `word_scale` before positions are added: the larger, the faster
    words are learned (the 2017 paper takes √d_model, section 3.4), and the less is made of their order.
    `positions=False` leaves the order out, and the review becomes a bag.
    """

    def __init__(
        self, num_words, d_model, num_heads, d_hidden, num_layers, *, dropout=0.0, word_scale=1.0, positions=True
    ):
        super().__init__()
        self.word_scale = word_scale
        self.positions = positions
        self.embedding = nn.Embedding(num_words, d_model, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.zeros_(self.embedding.weight[0])
        self.dropout = nn.Dropout(dropout)
        self.encoder = Encoder(num_layers, d_model, num_heads, d_hidden)
        self.classify = nn.Linear(2 * d_model, 2)

    def embed(self, words):
        """Word numbers (B, T) → vectors (B, T, d_model)."""
        x = self.word_scale * self.embedding(words)
        if self.positions:
            x = x + sinusoidal_positions(words.shape[1], x.shape[2], x.device)
        return self.dropout(x)

    def forward(self, words):
        """Word numbers (B, T), 0 = padding → scores (B, 2)."""
        real = words != 0  # (B, T)
        h, _ = self.encoder(self.embed(words), mask=real[:, None, :])  # (B, T, d_model)
        return self.classify(self.dropout(masked_pool(h, real)))
