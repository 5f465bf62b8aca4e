"""Checkpoints: trained classifiers as files, and the progress of training runs, to resume them."""

import torch

from utils.classifiers import CLASSIFIERS
from utils.files import CorruptFileError, atomic_write, read_tensors


def save(path, model, arguments, vocabulary, history):
    """Save `model`, with its `vocabulary` and `history`; `arguments` are those of its class but the number of words."""
    model = getattr(model, "_orig_mod", model)  # torch.compile wraps it
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    kept = {"model_class": type(model).__name__, "arguments": arguments, "words": vocabulary.itos}
    with atomic_write(path, "wb") as file:
        torch.save(kept | {"history": history, "weights": weights}, file)


def load(path):
    """The model, in evaluation mode on the CPU, and its words in the order of their ids.

    CorruptFileError if the file is damaged or holds something else.
    """
    kept = read_tensors(path)
    if not isinstance(kept, dict) or kept.get("model_class") not in CLASSIFIERS:
        raise CorruptFileError(f"{path} does not hold a trained classifier")
    model = CLASSIFIERS[kept["model_class"]](len(kept["words"]), **kept["arguments"])
    model.load_state_dict(kept["weights"])
    return model.eval(), kept["words"]


class ResumeError(ValueError):
    """A training run cannot start or go on, because its progress file is missing, damaged, or from a different run."""


class Progress:
    """Keeps in a file all that determines how a training run continues, so that it ends as if it had never been
    interrupted.

    `parts` are the objects that have a `state_dict`: model, optimizers, schedules. `generator` orders the reviews.
    `settings` is a dict that must be the same when training is resumed. The previous version of the file is kept as
    `path`.previous. In a process `group` only the first process reads and writes, because the others may be on other
    machines, but all must call `restore` and `save`.
    """

    def __init__(self, path, group, parts, generator, settings):
        self.path, self.group, self.parts, self.generator = path, group, parts, generator
        self.settings = settings | {"torch": str(torch.__version__)}
        self.previous = path.with_name(path.name + ".previous")

    def restore(self):
        """Restore the state that the file holds. Returns (history, weights of its best epoch); ([], None) without a
        file.

        ResumeError if the file is damaged, or belongs to a different training run.
        """
        kept = self.group.broadcast(self.read() if self.group.rank == 0 and self.path.exists() else None)
        if kept is None:
            return [], None
        for part, state in zip(self.parts, kept["parts"]):
            part.load_state_dict(state)
        for generator, state in zip(self.generators(), kept["rng_states"][self.group.rank]):
            generator.set_state(state)
        if self.group.rank == 0:
            print(
                f"continuing after epoch {len(kept['history'])}, kept in {self.path}; delete that file to start again"
            )
        return kept["history"], kept["best"]

    def read(self):
        """The content of the file, if it can be read and belongs to this training run."""
        remedy = (
            f"delete it to start again, or rename {self.previous} to {self.path.name} to continue from there"
            if self.previous.exists()
            else "delete it"
        )
        try:
            kept = read_tensors(self.path)
        except CorruptFileError as problem:
            raise ResumeError(f"{problem}: {remedy}") from problem
        if not isinstance(kept, dict) or "settings" not in kept:
            raise ResumeError(f"{self.path} does not hold the progress of a training run: move it away to start again")
        then, now = kept["settings"], self.settings
        different = [
            name if name in ("model", "task") else f"{name} {then.get(name)}, not {now[name]}"
            for name in now
            if then.get(name) != now[name]
        ]
        if different:
            raise ResumeError(
                f"{self.path} belongs to a different training run ({'; '.join(different)}): delete it to start again"
            )
        return kept

    def generators(self):
        """The random number generators for the order of the reviews, and for dropout on the CPU and on each GPU."""
        return [self.generator, torch.default_generator, *torch.cuda.default_generators]

    def save(self, history, best):
        """Write the file. If it cannot be written, what was kept before stays, and the training goes on."""
        rng_states = self.group.all_gather([generator.get_state() for generator in self.generators()])
        if self.group.rank > 0:
            return
        kept = {"parts": [part.state_dict() for part in self.parts], "rng_states": rng_states}
        kept |= {"settings": self.settings, "history": history, "best": best}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path, "wb", self.previous) as file:
                torch.save(kept, file)
        except (OSError, RuntimeError) as problem:  # PyTorch raises RuntimeError if the disk is full
            print(f"epoch {len(history)} was not saved, because {self.path} could not be written: {problem}")


def delete_progress(path):
    """Delete what `Progress` has kept at `path`, because the training has ended."""
    for kept in (path, path.with_name(path.name + ".previous"), *path.parent.glob(f"{path.name}.*.part")):
        kept.unlink(missing_ok=True)
