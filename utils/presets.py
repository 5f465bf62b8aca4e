"""What is trained: each preset's model and settings, its data as numbers, its model before training."""

from dataclasses import dataclass

import torch

from utils import datasets, text
from utils.classifiers import CLASSIFIERS

CACHE = datasets.DATA

CONVOLUTION = {
    "task": {"name": "imdb", "min_films": 5},
    "kind": "WordConvolution",
    "model": {"num_units": 128, "reaches": (1, 2), "dropout": 0.3},
    "start": 0.05,
    "fit": {"epochs": 4, "batch_size": 64, "max_tokens": 512, "learning_rate": 2e-3, "schedule": "linear"}
    | {"table_rate": 0.04, "word_dropout": 0.2},
}
# Frozen on both validations, before the test set was looked at; `lecture` has the published notebook's settings.
PRESETS = {
    "lecture": {
        "task": {"name": "imdb", "tokenizer": "spaces", "max_words": 50_000, "max_first_tokens": 200},
        "kind": "LectureClassifier",
        "model": {"d_model": 32, "num_heads": 2, "d_hidden": 128, "num_layers": 3},
        "fit": {"epochs": 10, "batch_size": 164, "max_tokens": 200, "learning_rate": 1e-3, "schedule": "constant"},
    },
    "encoder": {
        "task": {"name": "imdb", "min_films": 20},
        "kind": "ReviewClassifier",
        "model": {"d_model": 64, "num_heads": 4, "d_hidden": 128, "num_layers": 1, "dropout": 0.3, "word_scale": 8.0},
        "start": 0.05,
        "fit": CONVOLUTION["fit"] | {"table_rate": 0.02, "word_dropout": 0.4},
    },
    "convolution": CONVOLUTION,
    "quick": CONVOLUTION | {"model": {"num_units": 16, "dropout": 0.3}, "fit": CONVOLUTION["fit"] | {"epochs": 2}},
    "toy": {
        "task": {"name": "toy", "min_films": 1},
        "kind": "ReviewClassifier",
        "model": {"d_model": 64, "num_heads": 4, "d_hidden": 128, "num_layers": 1},
        "fit": {"epochs": 35, "batch_size": 32, "max_tokens": 128, "learning_rate": 2e-3, "word_dropout": 0.05}
        | {"threads": 1},  # two are a tenth faster on idle cores, and three times slower beside a busy one
    },
}


@dataclass(frozen=True)
class Task:
    """A data set as numbers, ready to train on.

    reviews, test: the two halves as they came; train_rows, film_rows, random_rows: rows of `reviews` to train on, to
    validate by film and to validate at random; words, test_words: the halves as `text.Packed` numbers of `vocabulary`.
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
    """Load the set `name` ("imdb" or "toy"), hold out both validations, turn words into numbers. Returns a `Task`.

    The vocabulary is of words in at least `min_films` films, or else of the `max_words` most frequent. Each review
    is cut after `max_first_tokens`. Without `hold_out` all training reviews are trained on, and validations are empty.
    """
    reviews, test = datasets.load(name)
    train, film, random = datasets.hold_out(reviews.films)
    if not hold_out:
        train, film, random = torch.arange(len(reviews)), *torch.empty(2, 0, dtype=torch.int64)
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
    """How much a word speaks for "liked" by itself (words,): log P(word | liked) - log P(word | not liked).

    In the training reviews; a film counts once for each label, so that its own words do not pass for praise. 1 is added
    to every count.
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
def lean(numbers, odds, strength):
    """Add strength × log-odds (words,) to half of each word's numbers (words, n), and take it off the other half."""
    half = numbers.shape[1] // 2
    numbers[:, :half] += strength * odds[:, None]
    numbers[:, half:] -= strength * odds[:, None]


def build(preset, task, seed):
    """The preset's model for the words of `task`, as it is before training."""
    torch.manual_seed(seed)
    model = CLASSIFIERS[preset["kind"]](len(task.vocabulary), **preset["model"])
    if preset.get("start"):
        for numbers in model.word_numbers():
            lean(numbers, log_odds(task), preset["start"])
    return model
