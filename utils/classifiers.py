"""Two more review classifiers: the lecture's own, to compare with, and attention to the neighbours, the most accurate.

Shapes: B batch, T words, H heads, W = 2 reach + 1 neighbours, S and M units pooled by sum and by maximum.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from utils.transformer import ReviewClassifier, masked_pool, sinusoidal_positions


class LectureClassifier(ReviewClassifier):
    """The published notebook's model: every review filled up to `length` words, and padding is a word like any other.

    It normalises the embedded words and pools by the maximum alone. `masked` skips padding, `mean` adds the mean to the
    pool. Alfredo Canziani, github.com/Atcold/NYU-DLSP20, 15-transformer.ipynb.
    """

    length = 200

    def __init__(self, num_words, d_model, num_heads, d_hidden, num_layers, *, masked=False, mean=False):
        super().__init__(num_words, d_model, num_heads, d_hidden, num_layers)
        self.masked, self.mean = masked, mean
        nn.init.normal_(self.embedding.weight)
        self.norm = nn.LayerNorm(d_model)
        self.classify = nn.Linear(2 * d_model if mean else d_model, 2)

    def embed(self, words):
        """Word numbers (B, T) → vectors (B, T, d_model)."""
        x = self.embedding(words)
        return self.norm(x + sinusoidal_positions(words.shape[1], x.shape[2], x.device))

    def forward(self, words):
        """Word numbers (B, T), 0 = padding → scores (B, 2)."""
        if not self.masked:
            words = F.pad(words, (0, self.length - words.shape[1]))
        real = (words != 0) | (not self.masked)
        h, _ = self.encoder(self.embed(words), mask=real[:, None, :] if self.masked else None)
        pooled = masked_pool(h, real)  # (B, 2 d_model): mean, maximum
        return self.classify(pooled if self.mean else pooled[:, h.shape[2] :])


def neighbours(x, reach):
    """What stands `reach` places before each place, …, there, …, `reach` after; 0 outside.

    x (B, T, …) → list of 2 reach + 1 tensors of the same shape.
    """
    padded = F.pad(x, (0, 0) * (x.dim() - 2) + (reach, reach))
    return [padded[:, first : first + x.shape[1]] for first in range(2 * reach + 1)]


class PhraseClassifier(nn.Module):
    """Words → attention to the neighbours → pool over the review → two scores.

    Each word attends to itself and to `reach` words on either side. Head h scores neighbour j of word i by content and
    by distance: q_i · k_j / √d_key + distance[h, j - i]. The second is learned (Raffel et al., 2020, section 2.1) and
    starts at `ahead` for one distance, in the first head 0, then 1, then -1, and at 0 for the others: the larger, the
    harder the attention (e⁴ = 55 times the weight, e⁸ = 2981). `content=False` leaves the first out.

    A word's values are looked up, S + M of them for each head; queries and keys are computed from the S. The heads'
    results are added up, with a bias, and rectified. The S are pooled by sum / √T, the M by their maximum. No word
    attends to padding (number 0). While training, `word_dropout` blanks words where they stand.
    """

    TABLES = ("sum_values.weight", "max_values.weight")  # with sparse gradients
    num_heads, reach, d_key = 3, 1, 16

    def __init__(self, num_words, S, M, *, ahead, content=True, dropout=0.0, word_dropout=0.0):
        super().__init__()
        self.num_words, self.S, self.M = num_words, S, M
        self.content, self.word_dropout = content, word_dropout
        rows, W = num_words * self.num_heads, 2 * self.reach + 1
        self.sum_values = nn.Embedding(rows, S, sparse=True)
        self.max_values = nn.Embedding(rows * M, 1, sparse=True)  # flat
        for table in (self.sum_values, self.max_values):
            nn.init.normal_(table.weight, std=0.01)
        if content:
            self.queries_keys = nn.Linear(self.num_heads * S, 2 * self.num_heads * self.d_key)
        self.distance = nn.Parameter(torch.zeros(self.num_heads, W))
        with torch.no_grad():
            for head in range(self.num_heads):
                self.distance[head, (self.reach + head) % W] = ahead
        self.bias = nn.Parameter(torch.zeros(S + M))
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(S + M, 2)

    @torch.no_grad()
    def start_from(self, log_odds, strength):
        """Add strength × log_odds (num_words,) to the values, in half of the units minus that."""
        sign = [torch.where(torch.arange(units) < units // 2, 1.0, -1.0) for units in (self.S, self.M)]
        start = strength * log_odds[:, None]  # (num_words, 1)
        self.sum_values.weight.view(self.num_words, self.num_heads, self.S)[:, 0] += start * sign[0]
        share = torch.rand(self.num_heads, self.M)  # of each head
        values = self.max_values.weight.view(self.num_words, self.num_heads, self.M)
        values += start[:, None] * sign[1] * share

    def forward(self, words):
        """Word numbers (B, T), 0 = padding → scores (B, 2)."""
        real = words != 0  # (B, T)
        if self.training and self.word_dropout:
            blank = torch.rand(words.shape, device=words.device) < self.word_dropout
            words = words.masked_fill(blank, 0)
        head = torch.arange(self.num_heads, device=words.device)
        rows = words[:, :, None] * self.num_heads + head  # (B, T, H)
        values = self.sum_values(rows) * (words != 0)[:, :, None, None]  # (B, T, H, S)
        a = self.weights(values, real)  # (B, T, H, W)
        pooled = [self.total(values, real, a)] + ([self.largest(rows, real, a)] if self.M else [])
        return self.classify(self.dropout(torch.cat(pooled, 1)))

    def weights(self, values, real):
        """How much each word attends to its neighbours: (B, T, H, S) and mask → (B, T, H, W)."""
        scores = self.distance.expand(*values.shape[:3], -1)
        if self.content:
            both = self.queries_keys(values.flatten(2))
            q, k = both.unflatten(2, (2, self.num_heads, self.d_key)).unbind(2)  # (B, T, H, d_key)
            content = [(q * near).sum(3) for near in neighbours(k, self.reach)]  # each (B, T, H)
            scores = scores + torch.stack(content, 3) / math.sqrt(self.d_key)
        may_attend = torch.stack(neighbours(real, self.reach), 2)[:, :, None]  # (B, T, 1, W)
        return scores.masked_fill(~may_attend, torch.finfo(scores.dtype).min).softmax(3)

    def total(self, values, real, a):
        """Attention for the S units, rectified, summed over the review, / √T: (B, S)."""
        h = self.bias[: self.S]
        for near, weight in zip(neighbours(values, self.reach), a.unbind(3)):
            h = h + (weight[..., None] * near).sum(2)  # (B, T, S)
        return (h.relu() * real[:, :, None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1).sqrt()

    def largest(self, rows, real, a):
        """Attention for the M units, rectified, its maximum over the review: (B, M).

        Only the place where a unit is largest has a gradient. So the places are found without one, and the attention
        there is computed again with it: B·M sums of H·W values instead of B·T·M.
        """
        B, T, H, W = a.shape
        rows = torch.stack(neighbours(rows, self.reach), 3).flatten(2)  # (B, T, H·W)
        a = a.flatten(2) * (rows >= H)  # blanked words have no value
        with torch.no_grad():
            table = self.max_values.weight.view(-1, self.M)
            flat = rows.view(B * T, -1), a.view(B * T, -1)
            h = F.embedding_bag(flat[0], table, mode="sum", per_sample_weights=flat[1])
            h = h.view(B, T, self.M).masked_fill_(~real[:, :, None], torch.finfo(h.dtype).min)
            place = h.max(1).indices  # (B, M)
        chosen = place[:, :, None].expand(-1, -1, H * W)  # (B, M, H·W)
        rows, a = rows.gather(1, chosen), a.gather(1, chosen)
        entries = rows * self.M + torch.arange(self.M, device=rows.device)[:, None]
        values = self.max_values(entries)[..., 0]
        return ((a * values).sum(2) + self.bias[self.S :]).relu()
