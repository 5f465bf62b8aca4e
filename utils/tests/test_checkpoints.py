"""A checkpoint is the model and its words."""

import torch

from utils import checkpoints, presets, text
from utils.classifiers import ReviewClassifier

TOY = presets.PRESETS["toy"]


def test_checkpoint_comes_back(task, tmp_path):
    model = ReviewClassifier(len(task.vocabulary), **TOY["model"]).eval()
    checkpoints.save(tmp_path / "new" / "model.pt", model, TOY["model"], task.vocabulary, [{"epoch": 1}])
    loaded, words = checkpoints.load(tmp_path / "new" / "model.pt")
    numbers = text.pad(task.words, torch.arange(5))
    assert torch.equal(model(numbers), loaded(numbers)) and words == task.vocabulary.itos
