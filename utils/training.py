"""Training a review classifier: batches, the five steps, what is kept. What is trained stands in `presets`."""

import copy
import itertools
import math
import os
import sys
import time

import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import lr_scheduler
from tqdm import tqdm

from utils import text


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
