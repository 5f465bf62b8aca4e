"""Trained classifiers as files, and trainings on their way."""

import torch
from torch import distributed

from utils.classifiers import CLASSIFIERS
from utils.files import read_tensors, written_atomically


def save(path, model, arguments, vocabulary, history):
    """Keep `model` in the file `path`; `arguments` are those it was made with after the number of words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    kept = {"kind": type(model).__name__, "arguments": arguments, "words": vocabulary.itos}
    with written_atomically(path, "wb") as file:
        torch.save(kept | {"history": history, "weights": weights}, file)


def load(path):
    """The model, in evaluation mode on the CPU, and its words in the order of their numbers; ValueError if damaged."""
    kept = read_tensors(path)
    model = CLASSIFIERS[kept["kind"]](len(kept["words"]), **kept["arguments"])
    model.load_state_dict(kept["weights"])
    return model.eval(), kept["words"]


class CannotGoOn(ValueError):
    """A training on its way is damaged, or another one."""


class Progress:
    """A training on its way, in a file: all that decides how it goes on, so that it ends as if it had never stopped.

    `parts` are what has a `state_dict`: model, optimizer, schedule; `generator` deals the reviews; `settings` is a dict
    that must be the same when it goes on. The file before the last stays beside it as `path`.previous.
    """

    def __init__(self, path, parts, generator, settings):
        self.path, self.parts, self.generator = path, parts, generator
        self.settings = settings | {"torch": str(torch.__version__)}
        self.previous = path.with_name(path.name + ".previous")

    def restore(self):
        """Go back to where the file says. Returns (history, weights of its best epoch); ([], None) without a file.

        CannotGoOn if it is damaged, or of another training.
        """
        if not self.path.exists():
            return [], None
        remedy = f"delete it to begin anew, or go on from {self.previous}" if self.previous.exists() else "delete it"
        try:
            kept = read_tensors(self.path)
        except ValueError as problem:
            raise CannotGoOn(f"{problem}: {remedy}") from problem
        if kept["settings"] != self.settings:
            names = [name for name, value in self.settings.items() if kept["settings"].get(name) != value]
            raise CannotGoOn(f"{self.path} is of another training ({', '.join(names)}): delete it to begin anew")
        for name, part in self.parts.items():
            part.load_state_dict(kept[name])
        self.generator.set_state(kept["order"])
        torch.set_rng_state(kept["luck"][distributed.get_rank() if distributed.is_initialized() else 0])
        print(f"goes on after epoch {len(kept['history'])} of {self.path}; delete that file to begin anew")
        return kept["history"], kept["best"]

    def save(self, history, best):
        """Write it; under torchrun all processes must call, and the first writes."""
        luck = [torch.get_rng_state()]
        if distributed.is_initialized():
            luck = luck * distributed.get_world_size()
            distributed.all_gather_object(luck, torch.get_rng_state())
            if distributed.get_rank():
                return
        kept = {name: part.state_dict() for name, part in self.parts.items()}
        kept |= {"order": self.generator.get_state(), "luck": luck, "settings": self.settings}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.sweep()
        with written_atomically(self.path, "wb", self.previous) as file:
            torch.save(kept | {"history": history, "best": best}, file)

    def done(self):
        """Delete it: the training has ended."""
        self.sweep()
        for path in (self.path, self.previous):
            path.unlink(missing_ok=True)

    def sweep(self):
        """Delete what a kill in the middle of a write has left."""
        for left in self.path.parent.glob(f"{self.path.name}.*.part"):
            left.unlink()
