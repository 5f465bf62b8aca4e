"""Trained classifiers as files: everything needed to use one again."""

import torch

from utils.classifiers import CLASSIFIERS
from utils.files import written_atomically


def save(path, model, arguments, vocabulary, history):
    """Keep `model` in the file `path`; `arguments` are those it was made with after the number of words."""
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


def load(path):
    """Returns the model, in evaluation mode on the CPU, and its words in the order of their numbers."""
    kept = torch.load(path, weights_only=True)
    model = CLASSIFIERS[kept["kind"]](len(kept["words"]), **kept["arguments"])
    model.load_state_dict(kept["weights"])
    return model.eval(), kept["words"]
