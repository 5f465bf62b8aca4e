"""Trained classifiers as files, and trainings on their way."""

import torch

from utils.classifiers import CLASSIFIERS
from utils.files import Damaged, read_tensors, written_atomically


def save(path, model, arguments, vocabulary, history):
    """Keep `model` in the file `path`; `arguments` are those it was made with after the number of words."""
    model = getattr(model, "_orig_mod", model)  # torch.compile wraps it
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    kept = {"kind": type(model).__name__, "arguments": arguments, "words": vocabulary.itos}
    with written_atomically(path, "wb") as file:
        torch.save(kept | {"history": history, "weights": weights}, file)


def load(path):
    """The model, in evaluation mode on the CPU, and its words in the order of their numbers; Damaged if it is."""
    kept = read_tensors(path)
    if not isinstance(kept, dict) or kept.get("kind") not in CLASSIFIERS:
        raise Damaged(f"{path} holds no trained classifier")
    model = CLASSIFIERS[kept["kind"]](len(kept["words"]), **kept["arguments"])
    model.load_state_dict(kept["weights"])
    return model.eval(), kept["words"]


class CannotGoOn(ValueError):
    """A training on its way is damaged, or another one."""


class Progress:
    """A training on its way, in a file: all that decides how it goes on, so that it ends as if it had never stopped.

    `parts` are what has a `state_dict`: model, optimizers, schedules; `generator` deals the reviews; `settings` is a
    dict that must be the same when it goes on. The file before the last stays beside it as `path`.previous. Of a
    `team` the first process reads and writes, for the others may be on other machines; all must call.
    """

    def __init__(self, path, team, parts, generator, settings):
        self.path, self.team, self.parts, self.generator = path, team, parts, generator
        self.settings = settings | {"torch": str(torch.__version__)}
        self.previous = path.with_name(path.name + ".previous")

    def restore(self):
        """Go back to where the file says. Returns (history, weights of its best epoch); ([], None) without a file.

        CannotGoOn if it is damaged, or of another training.
        """
        kept = self.team.from_first(self.read() if self.team.rank == 0 and self.path.exists() else None)
        if kept is None:
            return [], None
        for part, state in zip(self.parts, kept["parts"]):
            part.load_state_dict(state)
        for generator, state in zip(self.generators(), kept["luck"][self.team.rank]):
            generator.set_state(state)
        if self.team.rank == 0:
            print(f"goes on after epoch {len(kept['history'])} of {self.path}; delete that file to begin anew")
        return kept["history"], kept["best"]

    def read(self):
        remedy = f"delete it to begin anew, or go on from {self.previous}" if self.previous.exists() else "delete it"
        try:
            kept = read_tensors(self.path)
        except Damaged as problem:
            raise CannotGoOn(f"{problem}: {remedy}") from problem
        if not isinstance(kept, dict) or "settings" not in kept:
            raise CannotGoOn(f"{self.path} is no interrupted training: move it away to begin anew")
        then, now = kept["settings"], self.settings
        names = [name for name in now if then.get(name) != now[name]]
        if names:
            told = [
                name if name in ("model", "task") else f"{name} {then.get(name)}, not {now[name]}" for name in names
            ]
            raise CannotGoOn(f"{self.path} is of another training ({'; '.join(told)}): delete it to begin anew")
        return kept

    def generators(self):
        """The order of the reviews, and the randomness of dropout: on the CPU and on each GPU."""
        return [self.generator, torch.default_generator, *torch.cuda.default_generators]

    def save(self, history, best):
        """Write it. Where it cannot be written, what was kept before stays, and the training need not end."""
        luck = self.team.from_all([generator.get_state() for generator in self.generators()])
        if self.team.rank > 0:
            return
        kept = {"parts": [part.state_dict() for part in self.parts], "luck": luck, "settings": self.settings}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with written_atomically(self.path, "wb", self.previous) as file:
                torch.save(kept | {"history": history, "best": best}, file)
        except (OSError, RuntimeError) as problem:  # a full disk is a RuntimeError of torch's
            print(f"epoch {len(history)} is not kept, for {self.path} could not be written: {problem}")


def forget(path):
    """Delete what `Progress` has kept at `path`: the training has ended."""
    for kept in (path, path.with_name(path.name + ".previous"), *path.parent.glob(f"{path.name}.*.part")):
        kept.unlink(missing_ok=True)
