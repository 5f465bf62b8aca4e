"""The one door to torchtext: texts become tokens, a vocabulary, numbers, and batches.

Many texts are kept packed: one long tensor of numbers and the offsets at which each text starts. Nothing is padded
until a batch is made, and then only to the longest text of that batch.
"""

from collections import Counter
from dataclasses import dataclass

import torch
from torchtext.data.utils import get_tokenizer
from torchtext.vocab import Vocab

from utils.files import cached

PAD, UNKNOWN = 0, 1
CACHE_VERSION = 1  # to be raised whenever the same text would become other tokens
tokenize = get_tokenizer("basic_english")  # lower case, punctuation split off or dropped: str → list of str


def split_at_spaces(text):
    """Lower case and nothing else: "dull," and "dull" are two words. str → list of str."""
    return text.lower().split()


TOKENIZERS = {"basic_english": tokenize, "spaces": split_at_spaces}


@dataclass(frozen=True)
class Packed:
    """Texts as numbers, one after another: text i is `ids[offsets[i]:offsets[i + 1]]`.

    ids (N,) int32, offsets (number of texts + 1,) int64.
    """

    ids: torch.Tensor
    offsets: torch.Tensor

    def __len__(self):
        return len(self.offsets) - 1

    def __getitem__(self, i):
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self):
        """Tokens in each text."""
        return self.offsets.diff()

    def where(self, keep):
        """The same texts with only the tokens for which `keep` (N,) is true."""
        before = torch.cat([torch.zeros(1, dtype=torch.int64), keep.cumsum(0)])  # tokens kept before each place
        return Packed(self.ids[keep.to(self.ids.device)], before[self.offsets])

    def places(self):
        """The place of each token in its text, from 0: (N,)."""
        return torch.arange(len(self.ids)) - self.offsets[:-1].repeat_interleave(self.lengths)

    def drop_words(self, share, generator=None):
        """Each token left out with probability `share`: word dropout without the wasted work."""
        return self.where(torch.rand(len(self.ids), generator=generator) >= share)

    def first_tokens(self, size):
        """Each text cut after its first `size` tokens."""
        return self.where(self.places() < size)

    def head_and_tail(self, size):
        """Of each text longer than `size` tokens its head and its tail, half each: reviewers judge at either end."""
        place, length, half = self.places(), self.lengths.repeat_interleave(self.lengths), size // 2
        return self.where((place < half) | (place >= length - (size - half)))

    def to(self, device):
        """The same with the numbers on `device`; the offsets, which only choose, stay on the CPU."""
        return Packed(self.ids.to(device), self.offsets)


@dataclass(frozen=True)
class Tokens:
    """Tokenised texts: token j of text i is `words[packed[i][j]]`, and `words` has every different token once."""

    words: list
    packed: Packed


def tokenize_all(texts, tokenize=tokenize):
    """Tokenise an iterable of str into `Tokens`, numbering words in the order they appear."""
    number, ids, offsets = {}, [], [0]
    for text in texts:
        ids.extend(number.setdefault(word, len(number)) for word in tokenize(text))
        offsets.append(len(ids))
    return Tokens(list(number), Packed(torch.tensor(ids, dtype=torch.int32), torch.tensor(offsets)))


def cached_tokens(texts, key, path, tokenizer="basic_english"):
    """`tokenize_all(texts)` with one of `TOKENIZERS`, kept in `path`; `key` must change whenever the texts do."""

    def make():
        tokens = tokenize_all(texts, TOKENIZERS[tokenizer])
        return {"words": "\n".join(tokens.words), "ids": tokens.packed.ids, "offsets": tokens.packed.offsets}

    kept = cached(path, f"{CACHE_VERSION} {tokenizer} {key}", make)
    words = kept["words"].split("\n") if kept["words"] else []
    return Tokens(words, Packed(kept["ids"], kept["offsets"]))


def build_vocabulary(tokens, rows, groups, min_groups):
    """The words that occur in at least `min_groups` different groups (films), counted over the texts in `rows`.

    `groups` (number of texts,) gives each text's group. Numbers 0 and 1 are padding and unknown words; the others go
    from the most widespread word down. Returns a torchtext `Vocab`.
    """
    lengths = tokens.packed.lengths
    chosen = torch.zeros(len(lengths), dtype=torch.bool)
    chosen[rows] = True
    inside = chosen.repeat_interleave(lengths)  # (N,)
    word = tokens.packed.ids[inside]
    names, group = groups.unique(return_inverse=True)
    group = group.repeat_interleave(lengths)[inside]
    frequent = word.bincount(minlength=len(tokens.words)) >= min_groups  # rarer words cannot be in as many groups
    place = torch.where(frequent, frequent.cumsum(0), 0)  # a frequent word's row in the table; row 0 takes the rest
    seen = torch.zeros(int(frequent.sum()) + 1, len(names), dtype=torch.bool)
    seen[place[word], group] = True
    spread = seen.sum(1, dtype=torch.int32)[1:].tolist()
    words = [tokens.words[i] for i in frequent.nonzero().flatten().tolist()]
    counts = Counter(dict(zip(words, spread, strict=True)))
    if max(spread, default=0) < min_groups:
        raise ValueError(f"no word is in {min_groups} different films: ask for fewer")
    return Vocab(counts, min_freq=min_groups, specials=["<pad>", "<unk>"])


def frequent_words(tokens, rows, max_words):
    """The `max_words` words that occur most often in the texts in `rows`, as a torchtext `Vocab` like the one above."""
    counts = torch.cat([tokens.packed[row] for row in rows]).bincount(minlength=len(tokens.words)).tolist()
    return Vocab(Counter(dict(zip(tokens.words, counts))), max_size=max_words, specials=["<pad>", "<unk>"])


def encode(tokens, vocabulary):
    """The tokens' numbers in `vocabulary`, as `Packed`; words it lacks become `UNKNOWN`."""
    table = torch.tensor([vocabulary.stoi.get(word, UNKNOWN) for word in tokens.words], dtype=torch.int32)
    return Packed(table[tokens.packed.ids], tokens.packed.offsets)


def pad(packed, rows):
    """Texts `rows` as one tensor (B, T), padded with `PAD` to their own longest; T is at least 1, for empty texts."""
    if not len(packed.ids) or not len(rows):
        return torch.full((len(rows), 1), PAD, device=packed.ids.device)
    start, length = packed.offsets[rows][:, None], packed.lengths[rows][:, None]  # (B, 1)
    place = torch.arange(max(1, int(length.max())))  # (T,)
    words = packed.ids[(start + place).clamp(max=len(packed.ids) - 1).to(packed.ids.device)]  # (B, T)
    return words.masked_fill((place >= length).to(words.device), PAD).long()


def scramble(packed, generator=None):
    """The same texts, the words inside each in random order."""
    text_of = torch.arange(len(packed)).repeat_interleave(packed.lengths)  # (N,)
    luck = torch.rand(len(text_of), dtype=torch.float64, generator=generator)
    order = (text_of + luck).argsort()  # texts stay in order, words inside them do not
    return Packed(packed.ids[order.to(packed.ids.device)], packed.offsets)


def batch_rows(lengths, batch_size, generator=None):
    """Row numbers in batches of similar length: an iterable over `lengths` (n,) → list of tensors.

    With a generator the rows are shuffled, sorted by length only within pools of 50 batches, and the batches shuffled;
    without one they go from the shortest to the longest.
    """
    if generator is None:
        return list(lengths.argsort(stable=True).split(batch_size))
    batches = []
    for pool in torch.randperm(len(lengths), generator=generator).split(50 * batch_size):
        batches += pool[lengths[pool].argsort(stable=True)].split(batch_size)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]
