"""Training a review classifier: data as numbers, the five steps, what is kept."""

import copy
import itertools
import math
import os
import sys
import time
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import lr_scheduler
from tqdm import tqdm

from utils import datasets, text
from utils.classifiers import LectureClassifier, ReviewClassifier, WordConvolution
from utils.files import written_atomically

CACHE = datasets.DATA
CLASSIFIERS = {kind.__name__: kind for kind in (LectureClassifier, ReviewClassifier, WordConvolution)}

CONVOLUTION = {
    "task": {"name": "imdb", "min_films": 5},
    "kind": "WordConvolution",
    "model": {"num_units": 128, "dropout": 0.3},
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
        "fit": {"epochs": 35, "batch_size": 32, "max_tokens": 128, "learning_rate": 2e-3, "word_dropout": 0.05},
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
        lean(model.word_numbers(), log_odds(task), preset["start"])
    return model


def best_device():
    """The fastest device here: cuda (this process's own, under torchrun), mps or cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def autocast(device):
    """bfloat16 where it pays, on CUDA; elsewhere nothing changes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def batches(packed, labels, rows, *, batch_size, max_tokens, generator=None):
    """Yield words (B, T) and labels (B,) of `rows`: shuffled if given a generator, else from short to long.

    Of texts longer than `max_tokens` head and tail are kept.
    """
    packed = packed.head_and_tail(max_tokens)
    for chosen in text.batch_rows(packed.lengths[rows], batch_size, generator):
        yield text.pad(packed, rows[chosen]), labels[rows[chosen]]


def train_epoch(model, batches, optimizer, schedule):
    """One pass over the batches in five steps. Returns mean loss and accuracy, while training."""
    model.train()
    totals = 0
    for words, labels in batches:
        with autocast(words.device):
            scores = model(words)  # ① forward
            loss = F.cross_entropy(scores, labels)  # ② loss
        optimizer.zero_grad()  # ③ clear gradients
        loss.backward()  # ④ backward
        optimizer.step()  # ⑤ step
        schedule.step()
        right = (scores.argmax(1) == labels).sum()
        totals += torch.stack([loss.detach() * len(labels), right, right.new_tensor(len(labels))])
    loss, right, count = totals.tolist()
    return loss / count, right / count


@torch.inference_mode()
def predict(model, packed, rows, *, max_tokens, batch_size=64):
    """The model's scores (number of rows, classes) for reviews `rows`, in that order, on the CPU; no dropout."""
    model.eval()
    device = next(model.parameters()).device
    packed = packed.head_and_tail(max_tokens)
    scores = []
    by_length = text.batch_rows(packed.lengths[rows], batch_size)
    for chosen in by_length:
        with autocast(device):
            scores.append(model(text.pad(packed, rows[chosen]).to(device)).float().cpu())
    return torch.cat(scores)[torch.cat(by_length).argsort()]


def evaluate(model, packed, labels, rows, *, max_tokens):
    """Mean loss and accuracy on reviews `rows`."""
    scores = predict(model, packed, rows, max_tokens=max_tokens)
    wanted = labels[rows]
    return F.cross_entropy(scores, wanted).item(), (scores.argmax(1) == wanted).float().mean().item()


class Together:
    """Several optimizers, or several schedules, as one."""

    def __init__(self, *parts):
        self.parts = parts

    def zero_grad(self):
        for part in self.parts:
            part.zero_grad()

    def step(self):
        for part in self.parts:
            part.step()


SCHEDULES = {
    "constant": lambda optimizer, steps: lr_scheduler.ConstantLR(optimizer, factor=1),
    "linear": lambda optimizer, steps: lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 100) * (1 - step / steps)
    ),
    "one-cycle": lambda optimizer, steps: lr_scheduler.OneCycleLR(
        optimizer, optimizer.param_groups[0]["lr"], total_steps=steps
    ),
}


def optimize(model, steps, *, learning_rate, schedule="one-cycle", table_rate=None):
    """AdamW; with `table_rate`, Adagrad at that rate for what is looked up. Returns optimizer and schedule.

    A rare word's row has a gradient now and then: Adagrad divides it by the root of what that entry has had so far
    (Duchi et al., 2011), and leaves alone what has none.
    """
    looked_up = [part.weight for part in model.modules() if isinstance(part, nn.Embedding)] if table_rate else []
    others = [parameter for parameter in model.parameters() if not any(parameter is table for table in looked_up)]
    optimizers = [torch.optim.AdamW(others, lr=learning_rate, fused=True)]
    if looked_up:
        fused = looked_up[0].device.type == "cpu" or None  # elsewhere torch chooses
        optimizers.append(torch.optim.Adagrad(looked_up, lr=table_rate, initial_accumulator_value=1e-6, fused=fused))
    return Together(*optimizers), Together(*(SCHEDULES[schedule](optimizer, steps) for optimizer in optimizers))


def fit(model, task, *, epochs, batch_size, max_tokens, word_dropout=0.0, seed=0, **rates):
    """Train on `task.train_rows` and leave the model as it was after its best epoch (see `best_epoch`).

    `rates` are those of `optimize`; each pass leaves out each word with probability `word_dropout`. Returns the
    history, a list with one dict per finished epoch. Ctrl-C ends the training early and keeps what was learned. Under
    torchrun every process takes its share of the batches, and `batch_size` holds for each.
    """
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    torch.manual_seed(seed + rank)  # dropout of its own in each process
    generator = torch.Generator().manual_seed(seed)  # the same order of reviews in all
    learner = DistributedDataParallel(model) if world > 1 else model
    device = next(model.parameters()).device
    words, labels = task.words.to(device), task.reviews.labels.to(device)
    steps = math.ceil(len(task.train_rows) / batch_size) // world
    optimizer, schedule = optimize(model, epochs * steps, **rates)
    sizes = {"batch_size": batch_size, "max_tokens": max_tokens, "generator": generator}
    history, best = [], None
    bar = tqdm(total=epochs * steps, unit=" steps", file=sys.stdout, leave=False, disable=rank > 0)
    try:
        for epoch in range(1, epochs + 1):
            began = time.perf_counter()
            order = batches(words.drop_words(word_dropout, generator), labels, task.train_rows, **sizes)
            share = itertools.islice(order, rank, steps * world, world)
            loss, accuracy = train_epoch(learner, progress(share, bar), optimizer, schedule)
            row = {
                "epoch": epoch,
                "seconds": time.perf_counter() - began,
                "train_loss": loss,
                "train_accuracy": accuracy,
            }
            history.append(row | validate(model, task, words, max_tokens))
            if best_epoch(history) is history[-1]:
                best = copy.deepcopy(model.state_dict())
            bar.write(f"epoch {epoch}/{epochs}: {described(history[-1])}", file=sys.stdout)
    except KeyboardInterrupt:
        bar.write(f"stopped in epoch {len(history) + 1}: what was learned is kept", file=sys.stdout)
    finally:
        bar.close()
    if history:
        model.load_state_dict(best)
    return history


def validate(model, task, words, max_tokens):
    """Loss and accuracy on both validations, as entries of a history; none where nothing is held out."""
    row = {}
    for name, rows in (("film", task.film_rows), ("random", task.random_rows)):
        if len(rows):
            loss, accuracy = evaluate(model, words, task.reviews.labels, rows, max_tokens=max_tokens)
            row |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
    return row


def best_epoch(history):
    """The entry with the highest accuracy on validation by film, the first of equals; the last without validation."""
    return max(history, key=lambda row: row.get("film_accuracy", row["epoch"]))


def described(row):
    """An entry of a history in one line."""
    said = f"training {row['train_accuracy']:.3f}"
    if "film_accuracy" in row:
        said += f", validation by film {row['film_accuracy']:.3f}, random {row['random_accuracy']:.3f}"
    return f"{said}; {row['seconds']:.1f} s"


def progress(items, bar):
    for item in items:
        yield item
        bar.update()


def save_checkpoint(path, model, arguments, vocabulary, history):
    """Everything needed to use `model` again; `arguments` are those it was made with after the number of words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    kept = {
        "kind": type(model).__name__,
        "arguments": arguments,
        "words": vocabulary.itos,
        "history": history,
        "weights": weights,
    }
    with written_atomically(path, "wb") as file:
        torch.save(kept, file)


def load_checkpoint(path):
    """Returns the model, in evaluation mode on the CPU, and its words in the order of their numbers."""
    kept = torch.load(path, weights_only=True)
    model = CLASSIFIERS[kept["kind"]](len(kept["words"]), **kept["arguments"])
    model.load_state_dict(kept["weights"])
    return model.eval(), kept["words"]
