"""From texts to tokens, a vocabulary, word ids and batches. Only this module imports torchtext.

Many texts are kept packed: one long tensor of ids, and the offsets at which the texts start. Nothing is padded until a
batch is made, and then only to the longest text of that batch.
"""

from collections import Counter
from dataclasses import dataclass

import torch
from torchtext.data.utils import get_tokenizer
from torchtext.vocab import Vocab

from utils.files import cached

PAD, UNKNOWN = 0, 1
CACHE_VERSION = 1  # to be increased whenever the same text would become different tokens
tokenize = get_tokenizer("basic_english")  # lower case, punctuation split off or dropped: str → list of str


def split_at_spaces(text):
    """Put a text into lower case and split it at spaces only: "dull," and "dull" are two words. str → list of str."""
    return text.lower().split()


TOKENIZERS = {"basic_english": tokenize, "spaces": split_at_spaces}


@dataclass(frozen=True)
class Packed:
    """Texts as ids, one after another: text i is `ids[offsets[i]:offsets[i + 1]]`.

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

    def keep_tokens(self, keep):
        """The same texts with only those tokens for which `keep` (N,) is true."""
        before = torch.cat([torch.zeros(1, dtype=torch.int64), keep.cumsum(0)])  # tokens kept before each place
        return Packed(self.ids[keep.to(self.ids.device)], before[self.offsets])

    def positions(self):
        """The position of each token in its text, from 0: (N,)."""
        return torch.arange(len(self.ids)) - self.offsets[:-1].repeat_interleave(self.lengths)

    def drop_words(self, share, generator=None):
        """The same texts, each token left out with probability `share` (word dropout)."""
        return self.keep_tokens(torch.rand(len(self.ids), generator=generator) >= share)

    def first_tokens(self, size):
        """The same texts, each cut after its first `size` tokens."""
        return self.keep_tokens(self.positions() < size)

    def head_and_tail(self, size):
        """The same texts, each cut to `size` tokens, half from its head and half from its tail."""
        position, length, half = self.positions(), self.lengths.repeat_interleave(self.lengths), size // 2
        return self.keep_tokens((position < half) | (position >= length - (size - half)))

    def to(self, device):
        """The same with the ids on `device`; the offsets stay on the CPU."""
        return Packed(self.ids.to(device), self.offsets)


@dataclass(frozen=True)
class Tokens:
    """Tokenised texts: token j of text i is `words[packed[i][j]]`, and `words` lists every distinct token once."""

    words: list
    packed: Packed


def tokenize_all(texts, tokenize=tokenize):
    """Tokenise an iterable of str into `Tokens`; words get ids in the order in which they appear."""
    id_of, ids, offsets = {}, [], [0]
    for text in texts:
        ids.extend(id_of.setdefault(word, len(id_of)) for word in tokenize(text))
        offsets.append(len(ids))
    return Tokens(list(id_of), Packed(torch.tensor(ids, dtype=torch.int32), torch.tensor(offsets)))


def cached_tokens(texts, key, path, tokenizer="basic_english"):
    """`tokenize_all(texts)` with one of `TOKENIZERS`, kept in the file `path`; `key` must change when the texts do."""

    def make():
        tokens = tokenize_all(texts, TOKENIZERS[tokenizer])
        return {"words": "\n".join(tokens.words), "ids": tokens.packed.ids, "offsets": tokens.packed.offsets}

    kept = cached(path, f"{CACHE_VERSION} {tokenizer} {key}", make)
    words = kept["words"].split("\n") if kept["words"] else []
    return Tokens(words, Packed(kept["ids"], kept["offsets"]))


def build_vocabulary(tokens, rows, groups, min_groups):
    """The words that occur in at least `min_groups` different groups (films) of the texts in `rows`.

    `groups` (number of texts,) is each text's group. Ids 0 and 1 are padding and unknown words; the others go from the
    most widespread word down. Returns a torchtext `Vocab`. ValueError if no word is in that many groups.
    """
    words_of = {}  # group → the ids of its words
    for row, group in zip(rows.tolist(), groups[rows].tolist()):
        words_of.setdefault(group, set()).update(tokens.packed[row].tolist())
    counts = Counter(word for words in words_of.values() for word in words)
    counts = Counter({tokens.words[word]: counts[word] for word in sorted(counts)})
    if max(counts.values(), default=0) < min_groups:
        raise ValueError(f"no word is in {min_groups} different films: ask for fewer")
    return Vocab(counts, min_freq=min_groups, specials=["<pad>", "<unk>"])


def frequent_words(tokens, rows, max_words):
    """The `max_words` words that occur most often in the texts in `rows`, as a torchtext `Vocab`."""
    counts = torch.cat([tokens.packed[row] for row in rows]).bincount(minlength=len(tokens.words)).tolist()
    return Vocab(Counter(dict(zip(tokens.words, counts))), max_size=max_words, specials=["<pad>", "<unk>"])


def encode(tokens, vocabulary):
    """The tokens' ids in `vocabulary`, as `Packed`; words that it lacks become `UNKNOWN`."""
    table = torch.tensor([vocabulary.stoi.get(word, UNKNOWN) for word in tokens.words], dtype=torch.int32)
    return Packed(table[tokens.packed.ids], tokens.packed.offsets)


def pad(packed, rows):
    """Texts `rows` as one tensor (B, T), padded with `PAD` to the longest of them; T is at least 1."""
    if not len(packed.ids) or not len(rows):
        return torch.full((len(rows), 1), PAD, device=packed.ids.device)
    start, length = packed.offsets[rows][:, None], packed.lengths[rows][:, None]  # (B, 1)
    place = torch.arange(max(1, int(length.max())))  # (T,)
    words = packed.ids[(start + place).clamp(max=len(packed.ids) - 1).to(packed.ids.device)]  # (B, T)
    return words.masked_fill((place >= length).to(words.device), PAD).long()


def scramble(packed, generator=None):
    """The same texts, with the words of each in random order."""
    text_of = torch.arange(len(packed)).repeat_interleave(packed.lengths)  # (N,)
    noise = torch.rand(len(text_of), dtype=torch.float64, generator=generator)
    order = (text_of + noise).argsort()  # texts stay in order, words inside them do not
    return Packed(packed.ids[order.to(packed.ids.device)], packed.offsets)


def batch_rows(lengths, batch_size, generator=None):
    """Row numbers in batches of similar length: `lengths` (n,) → list of tensors.

    Without a generator the rows go from the shortest text to the longest. With one they are shuffled, then sorted by
    length only within pools of 50 batches, and the batches are shuffled again.
    """
    if generator is None:
        return list(lengths.argsort(stable=True).split(batch_size))
    batches = []
    for pool in torch.randperm(len(lengths), generator=generator).split(50 * batch_size):
        batches += pool[lengths[pool].argsort(stable=True)].split(batch_size)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]
