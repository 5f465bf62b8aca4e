"""Tasks: a preset's data as word ids, ready to train on, and its model as it is before training."""

from dataclasses import dataclass

import torch

from utils import datasets, text
from utils.classifiers import CLASSIFIERS

CACHE = datasets.DATA


@dataclass(frozen=True)
class Task:
    """A data set as word ids, ready to train on.

    reviews, test: the two halves as they were loaded. train_rows, film_rows, random_rows: which rows of `reviews` are
    trained on, held out by film, and held out at random. words, test_words: the halves as `text.Packed` ids of
    `vocabulary`.
    """

    reviews: datasets.Reviews
    test: datasets.Reviews
    train_rows: torch.Tensor
    film_rows: torch.Tensor
    random_rows: torch.Tensor
    vocabulary: text.Vocab
    words: text.Packed
    test_words: text.Packed


def prepare(name, *, min_films=None, max_words=None, tokenizer="basic_english", max_first_tokens=None, hold_out=True):
    """Load the set `name` ("imdb" or "toy"), hold out both validations, turn words into ids. Returns a `Task`.

    The vocabulary has the words that occur in at least `min_films` films, or else the `max_words` most frequent ones.
    Each review is cut after `max_first_tokens`. Without `hold_out`, the model is trained on all training reviews, and
    both validations are empty.
    """
    reviews, test = datasets.load(name)
    train, film, random = datasets.hold_out(reviews.films)
    if not hold_out:
        none = torch.tensor([], dtype=torch.int64)
        train, film, random = torch.arange(len(reviews)), none, none
    kept = name if tokenizer == "basic_english" else f"{name}-{tokenizer}"
    tokens, test_tokens = (
        text.cached_tokens(half.texts, half.key, CACHE / f"tokens-{kept}-{part}.pt", tokenizer)
        for part, half in (("train", reviews), ("test", test))
    )
    if min_films:
        vocabulary = text.build_vocabulary(tokens, train, reviews.films, min_films)
    else:
        vocabulary = text.frequent_words(tokens, train, max_words)
    words, test_words = (text.encode(half, vocabulary) for half in (tokens, test_tokens))
    if max_first_tokens:
        words, test_words = (half.first_tokens(max_first_tokens) for half in (words, test_words))
    return Task(reviews, test, train, film, random, vocabulary, words, test_words)


def log_odds(task):
    """How much each word alone speaks for "liked" (words,): log P(word | liked) − log P(word | not liked).

    Words are counted in the training reviews. For each word, a film counts once per label, so that the names in it do
    not pass for praise; 1 is added to every count. S. Wang, C. Manning (2012), Baselines and Bigrams.
    """
    films = task.reviews.films.unique(return_inverse=True)[1]
    inside = torch.zeros(len(films), dtype=torch.bool)
    inside[task.train_rows] = True
    inside, side = (each.repeat_interleave(task.words.lengths) for each in (inside, 2 * films + task.reviews.labels))
    num_words = len(task.vocabulary)
    occurs = (side * num_words + task.words.ids)[inside].unique()  # (film, label, word), each once
    word, label = occurs % num_words, occurs // num_words % 2
    counts = torch.stack([word[label == one].bincount(minlength=num_words) for one in (0, 1)]) + 1.0
    negative, positive = (counts / counts.sum(1, keepdim=True)).log()
    odds = positive - negative
    odds[text.PAD] = 0.0
    return odds


@torch.no_grad()
def add_log_odds(table, odds, scale):
    """Add scale × log-odds (words,) to the first half of each row of `table` (words, n); subtract it from the other."""
    half = table.shape[1] // 2
    table[:, :half] += scale * odds[:, None]
    table[:, half:] -= scale * odds[:, None]


def build(preset, task, seed):
    """The preset's model for the words of `task`, as it is before training."""
    torch.manual_seed(seed)
    model = CLASSIFIERS[preset["model_class"]](len(task.vocabulary), **preset["model"])
    if preset.get("log_odds_scale"):
        for table in model.embedding_tables():
            add_log_odds(table, log_odds(task), preset["log_odds_scale"])
    return model
