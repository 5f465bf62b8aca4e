"""Classifiers of reviews: ours, made of an encoder; a convolution over words; the lecture's, for comparison.

Shapes: B batch, T words, U units, d dimension. Word id 0 is padding.
"""

import torch
from torch import nn
from torch.nn import functional as F

from utils.transformer import Encoder, masked_pool, sinusoidal_positions


class ReviewClassifier(nn.Module):
    """Words → vectors (+ positions) → encoder → pool over the set → two scores: liked or not?

    Word id 0 is padding: no query attends to it, and the pooling skips it. `dropout` acts on the embedded words and on
    the pooled vector. Word vectors are multiplied by `word_scale` before positions are added; the larger it is, the
    faster words are learned (the 2017 paper takes √d_model, section 3.4). With `positions=False` the model does not
    know the order of the words.
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

    def embedding_tables(self):
        """What is looked up for each word: [(num_words, d_model)]."""
        return [self.embedding.weight]

    def embed(self, words):
        """Word ids (B, T) → vectors (B, T, d_model)."""
        x = self.word_scale * self.embedding(words)
        if self.positions:
            x = x + sinusoidal_positions(words.shape[1], x.shape[2], x.device)
        return self.dropout(x)

    def forward(self, words):
        """Word ids (B, T), 0 = padding → scores (B, 2)."""
        real = words != 0  # (B, T)
        h, _ = self.encoder(self.embed(words), mask=real[:, None, :])  # (B, T, d_model)
        return self.classify(self.dropout(masked_pool(h, real)))


class WordConvolution(nn.Module):
    """Look up each word and its neighbours, add, rectify, pool, and compute two scores, without attention.

    The model consists of convolutions over one-hot words, one of width 2 reach + 1 for each of `reaches`. In each of
    them, a word has U numbers for itself and U for each neighbouring position. The sum of each unit over the review,
    divided by √T, and its maximum go side by side into a linear layer. Padding contributes nothing. R. Johnson, T.
    Zhang (2015), Effective Use of Word Order for Text Categorization with CNNs.
    """

    def __init__(self, num_words, num_units, *, reaches=(1,), dropout=0.0):
        super().__init__()
        self.reaches = reaches
        self.tables = nn.ModuleList(
            nn.Embedding(num_words, (2 * reach + 1) * num_units, padding_idx=0) for reach in reaches
        )
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.01)
            nn.init.zeros_(table.weight[0])
        self.bias = nn.Parameter(torch.zeros(len(reaches) * num_units))
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(2 * len(reaches) * num_units, 2)

    def embedding_tables(self):
        """What is looked up for each word itself, not for its neighbours: (num_words, U) for each width."""
        return [t.weight.chunk(2 * reach + 1, dim=1)[reach] for t, reach in zip(self.tables, self.reaches)]

    def forward(self, words):
        """Word ids (B, T), 0 = padding → scores (B, 2)."""
        real, T, h = words != 0, words.shape[1], []
        for table, reach in zip(self.tables, self.reaches):
            padded = F.pad(table(words), (0, 0, reach, reach))  # (B, reach + T + reach, width · U)
            taps = padded.chunk(2 * reach + 1, dim=2)  # for the word before, itself, the word after
            h.append(sum(tap[:, shift : shift + T] for shift, tap in enumerate(taps)))  # (B, T, U)
        h = F.relu(torch.cat(h, dim=2) + self.bias)  # (B, T, units)
        return self.classify(self.dropout(masked_pool(h, real)))


class LectureClassifier(nn.Module):
    """The lecture's model, rebuilt: every review is padded to `length` words, and padding is attended to and pooled
    like any word.

    It normalises the embedded words and pools by the maximum alone. It differs from the published model (Alfredo
    Canziani, github.com/Atcold/NYU-DLSP20, 15-transformer.ipynb) in its initial random numbers, in positions that are
    not learned, and in having biases for queries, keys and values.
    """

    length = 200

    def __init__(self, num_words, d_model, num_heads, d_hidden, num_layers):
        super().__init__()
        self.embedding = nn.Embedding(num_words, d_model, padding_idx=0)
        nn.init.normal_(self.embedding.weight)  # the row of padding, too
        self.norm = nn.LayerNorm(d_model)
        self.encoder = Encoder(num_layers, d_model, num_heads, d_hidden)
        self.classify = nn.Linear(d_model, 2)

    def embedding_tables(self):
        """What is looked up for each word: [(num_words, d_model)]."""
        return [self.embedding.weight]

    def forward(self, words):
        """Word ids (B, T), 0 = padding, T at most `length` → scores (B, 2). ValueError for longer reviews."""
        if words.shape[1] > self.length:
            raise ValueError(
                f"a review has {words.shape[1]} words, but this model reads at most {self.length}: cut it first"
            )
        x = self.embedding(F.pad(words, (0, self.length - words.shape[1])))
        x = self.norm(x + sinusoidal_positions(self.length, x.shape[2], x.device))
        return self.classify(self.encoder(x)[0].amax(1))


CLASSIFIERS = {kind.__name__: kind for kind in (LectureClassifier, ReviewClassifier, WordConvolution)}
