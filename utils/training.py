"""Training a review classifier: batches, the five steps, progress that is kept. `presets` says what is trained."""

import copy
import math
import os
import sys
import time
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from tqdm import tqdm

from utils import text
from utils.checkpoints import Progress
from utils.processes import ProcessGroup


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

    Texts longer than `max_tokens` keep only their head and tail.
    """
    packed = packed.head_and_tail(max_tokens)
    for chosen in text.batch_rows(packed.lengths[rows], batch_size, generator):
        yield text.pad(packed, rows[chosen]), labels[rows[chosen]]


def train_epoch(model, batches, optimizers, schedules):
    """One pass over the batches, in five steps each. Returns the mean loss and accuracy during training."""
    model.train()
    totals = 0
    for words, labels in batches:
        with autocast(words.device):
            scores = model(words)  # ① forward
            loss = F.cross_entropy(scores, labels)  # ② loss
        model.zero_grad()  # ③ clear gradients
        loss.backward()  # ④ backward
        for optimizer in optimizers:
            optimizer.step()  # ⑤ step
        for schedule in schedules:
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


SCHEDULES = {
    "constant": lambda optimizer, steps: lr_scheduler.ConstantLR(optimizer, factor=1),
    "linear": lambda optimizer, steps: lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 100) * (1 - step / steps)
    ),
    "one-cycle": lambda optimizer, steps: lr_scheduler.OneCycleLR(
        optimizer, optimizer.param_groups[0]["lr"], total_steps=steps
    ),
}


def optimize(model, steps, *, learning_rate, schedule="one-cycle", embedding_lr=None):
    """Make AdamW and, given `embedding_lr`, Adagrad at that rate for embedding tables. Returns optimizers and
    schedules.

    A rare word's row has a gradient only now and then. Adagrad divides each gradient by the root of the sum of the
    squares of all gradients so far (Duchi et al., 2011), and leaves a row without a gradient unchanged.
    """
    tables = [part.weight for part in model.modules() if isinstance(part, nn.Embedding)] if embedding_lr else []
    others = [parameter for parameter in model.parameters() if not any(parameter is table for table in tables)]
    optimizers = [torch.optim.AdamW(others, lr=learning_rate, fused=True)]
    if tables:
        fused = tables[0].device.type == "cpu" or None  # on other devices PyTorch chooses
        optimizers.append(torch.optim.Adagrad(tables, lr=embedding_lr, initial_accumulator_value=1e-6, fused=fused))
    return optimizers, [SCHEDULES[schedule](optimizer, steps) for optimizer in optimizers]


def fit(model, task, *, epochs, batch_size, max_tokens, word_dropout=0.0, threads=None, seed=0, keep=None, **rates):
    """Train on `task.train_rows` and leave the model as it was after its best epoch (see `best_epoch`).

    `rates` are the options of `optimize`; each pass leaves out each word with probability `word_dropout`. `threads` is
    how many threads compute on a CPU; a small model is fastest with one. Returns the history, a list with one dict per
    finished epoch. Ctrl-C ends training early; the model is then as it was after its best finished epoch. With `keep`,
    a path, progress is kept there after each epoch, and training continues from it if it exists
    (`checkpoints.delete_progress` deletes it). FloatingPointError if a gradient is not finite. Under torchrun the
    processes share each batch.
    """
    group = ProcessGroup()
    wrapped = group.wrap(model)
    torch.manual_seed(seed + group.rank)  # each process has its own dropout
    generator = torch.Generator().manual_seed(seed)  # and all have the same order of reviews
    device = next(model.parameters()).device
    words, labels = task.words.to(device), task.reviews.labels.to(device)
    steps = math.ceil(len(task.train_rows) / batch_size)
    optimizers, schedules = optimize(model, epochs * steps, **rates)
    sizes = {"batch_size": batch_size, "max_tokens": max_tokens}
    settings = sizes | rates | {"epochs": epochs, "word_dropout": word_dropout, "seed": seed, "processes": group.size}
    settings |= fingerprint(model, task)
    progress = keep and Progress(keep, group, [model, *optimizers, *schedules], generator, settings)
    history, best = progress.restore() if progress else ([], None)
    shown = {"unit": " steps", "leave": False, "file": sys.stdout, "disable": group.rank > 0}
    bar = tqdm(total=epochs * steps, initial=len(history) * steps, **shown)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads or threads_before)
    try:
        for epoch in range(len(history) + 1, epochs + 1):
            shortened = words.drop_words(word_dropout, generator)
            mine = group.shard(batches(shortened, labels, task.train_rows, generator=generator, **sizes))
            with explain_errors(epoch, keep, batch_size):
                began = time.perf_counter()
                checked = require_finite_gradients(mine, model, optimizers, bar)
                loss, accuracy = group.mean(*train_epoch(wrapped, checked, optimizers, schedules))
                row = {"epoch": epoch, "seconds": time.perf_counter() - began}
                row |= {"train_loss": loss, "train_accuracy": accuracy} | validate(model, task, words, max_tokens)
            history.append(row)
            if best_epoch(history) is row:
                best = copy.deepcopy(model.state_dict())
            if progress:
                progress.save(history, best)
            if group.rank == 0:
                bar.write(f"epoch {epoch}/{epochs}: {format_epoch(row)}", file=sys.stdout)
    except KeyboardInterrupt:
        kept = (
            f"the model is as after epoch {best_epoch(history)['epoch']}, its best"
            if history
            else "no epoch was finished"
        )
        bar.write(f"stopped in epoch {len(history) + 1}: {kept}", file=sys.stdout)
    finally:
        bar.close()
        torch.set_num_threads(threads_before)
        if history:
            model.load_state_dict(best)
    return history


@contextmanager
def explain_errors(epoch, keep, batch_size):
    """Add advice to two errors: a gradient that is not finite, and a GPU that is out of memory."""
    try:
        yield
    except FloatingPointError as problem:
        last = f"the last good checkpoint is {keep}" if keep and keep.exists() else "there is no checkpoint yet"
        raise FloatingPointError(f"{problem} of epoch {epoch}: use smaller learning rates; {last}") from None
    except torch.OutOfMemoryError:
        raise torch.OutOfMemoryError(f"the GPU's memory is full: try batch_size={max(1, batch_size // 2)}") from None


def require_finite_gradients(batches, model, optimizers, bar):
    """Yield the batches; after each training step, advance the bar and check the gradients of all parameters.

    FloatingPointError if one is not finite: on a CPU after that step, on a GPU after the last step of the epoch, when
    `train_epoch` waits for the GPU anyway. Gradients are the same in all processes, so all of them stop.
    """
    largest = torch.zeros((), device=next(model.parameters()).device)
    for step, batch in enumerate(batches, 1):  # noqa: B007  used below
        rates = ", ".join(f"{optimizer.param_groups[0]['lr']:.2g}" for optimizer in optimizers)
        yield batch
        bar.update()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        largest = torch.maximum(largest, nn.utils.get_total_norm(gradients))  # NaN, if either is NaN
        if largest.device.type == "cpu" and not largest.isfinite():
            break
    if not largest.isfinite():
        raise FloatingPointError(f"a gradient is not finite: rate {rates}, noticed at step {step}")


def fingerprint(model, task):
    """What distinguishes this model and task from others: the model's structure and settings, and the task's sizes."""
    settings = [
        [x for name, x in vars(part).items() if isinstance(x, (int, float)) and name != "training"]
        for part in model.modules()
    ]
    sizes = [len(task.train_rows), len(task.vocabulary), int(task.words.ids.sum())]
    return {"model": f"{model} {settings}", "task": sizes}


def validate(model, task, words, max_tokens):
    """Loss and accuracy on both validations, as a dict for one row of the history, without entries for an empty set."""
    row = {}
    for name, rows in (("film", task.film_rows), ("random", task.random_rows)):
        if len(rows):
            loss, accuracy = evaluate(model, words, task.reviews.labels, rows, max_tokens=max_tokens)
            row |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
    return row


def best_epoch(history):
    """The epoch with the highest accuracy on validation by film, the first of those that tie; without validation, the
    last.
    """
    if "film_accuracy" not in history[-1]:
        return history[-1]
    return max(history, key=lambda row: row["film_accuracy"])


def format_epoch(row):
    """An epoch of a history in one line."""
    line = f"training {row['train_accuracy']:.3f}"
    for name, key in (("validation by film", "film_accuracy"), ("random validation", "random_accuracy")):
        line += f", {name} {row[key]:.3f}" if key in row else ""
    return f"{line}; {row['seconds']:.1f} s"
