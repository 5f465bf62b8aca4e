"""Each preset on a pretended GPU and in 16-bit numbers: what a machine without a GPU can find of a GPU's faults.

torch's own fake tensors take no backward step for a GPU that is not there. So the device is pretended here, under the
name "meta", which every torch moves tensors to: its tensors compute on the CPU, so that results can be compared, and
refuse the company of tensors on the CPU, as a GPU's do.
"""

import contextlib
import dataclasses
import sys

import pytest
import torch
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from utils import checkpoints, presets, tasks, text, training

GPU = torch.device("meta")
MAY_MEET = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class GpuTensor(torch.Tensor):
    """A tensor on the pretended GPU; `numbers` is what it holds."""

    @staticmethod
    def __new__(cls, numbers):
        layout = {"strides": numbers.stride(), "storage_offset": numbers.storage_offset(), "dtype": numbers.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, numbers.shape, device=GPU, **layout)

    def __init__(self, numbers):
        self.numbers = numbers

    def new_tensor(self, numbers):
        return GpuTensor(torch.tensor(numbers, dtype=self.dtype))

    def tolist(self):
        return self.numbers.tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})


class PretendedGpu(TorchDispatchMode):
    """While it is entered, tensors can be made on the pretended GPU and moved there."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})


def compute(function, args, kwargs):
    """`function`, where its tensors are. They must all be on one device, but for single numbers and for indices."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    on_gpu = [tensor for tensor in tensors if isinstance(tensor, GpuTensor)]
    on_cpu = [tensor for tensor in tensors if not isinstance(tensor, GpuTensor) and tensor.dim()]
    chooses = "index" in str(function) and isinstance(args[0], GpuTensor)
    if on_gpu and on_cpu and not chooses and function not in MAY_MEET:
        raise RuntimeError(f"{function}: tensors on two devices, of shape {on_cpu[0].shape} on the CPU")
    stays = torch.device(kwargs.get("device") or (GPU if on_gpu else "cpu")) == GPU
    args, kwargs = tree_map(lambda leaf: leaf.numbers if isinstance(leaf, GpuTensor) else leaf, (args, kwargs))
    if kwargs.get("device"):
        kwargs["device"] = torch.device("cpu")
    found = function(*args, **kwargs)
    for one, its_numbers in zip(on_gpu[:1], args[:1]):
        if found is its_numbers:  # changed in place
            return one
    return tree_map(lambda leaf: GpuTensor(leaf) if stays and isinstance(leaf, torch.Tensor) else leaf, found)


@pytest.fixture(scope="module")
def small(task):
    """A task of three batches, so that all presets take seconds."""
    rows = {"train_rows": task.train_rows[:150], "film_rows": task.film_rows[:50], "random_rows": task.random_rows[:10]}
    return dataclasses.replace(task, **rows)


@pytest.fixture
def gpu(monkeypatch):
    known = _foreach_utils._get_fused_kernels_supported_devices()
    for module in [module for name, module in sys.modules.items() if name.startswith("torch.")]:
        if hasattr(module, "_get_fused_kernels_supported_devices"):
            monkeypatch.setattr(module, "_get_fused_kernels_supported_devices", lambda: [*known, GPU.type])
    monkeypatch.setattr(training, "autocast", lambda device: contextlib.nullcontext())
    # Inference mode knows no tensors that are made of others.
    monkeypatch.setattr(training, "predict", torch.no_grad()(training.predict.__wrapped__))
    return PretendedGpu()


def fit(model, preset, task):
    return training.fit(model, task, **preset["fit"] | {"epochs": 1, "batch_size": 64})


@pytest.mark.parametrize("name", presets.PRESETS)
def test_on_the_gpu_a_training_gives_the_cpus_numbers(small, gpu, tmp_path, name):
    preset = presets.PRESETS[name]
    [on_cpu] = fit(tasks.build(preset, small, seed=0), preset, small)
    with gpu:
        there = tasks.build(preset, small, seed=0).to(GPU)
        assert all(isinstance(parameter, GpuTensor) for parameter in there.parameters())
        [on_gpu] = fit(there, preset, small)
        checkpoints.save(tmp_path / "one.pt", there, preset["model"], small.vocabulary, [on_gpu])
    assert on_gpu == pytest.approx(on_cpu | {"seconds": on_gpu["seconds"]}, rel=1e-4)  # torch takes other kernels
    loaded, _ = checkpoints.load(tmp_path / "one.pt")
    for key, weights in there.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], weights.numbers), key


def test_a_tensor_left_on_the_cpu_is_found(small, gpu, monkeypatch):
    pad = text.pad
    monkeypatch.setattr(text, "pad", lambda packed, rows: pad(packed.to("cpu"), rows))
    preset = presets.PRESETS["toy"]
    with gpu, pytest.raises(RuntimeError, match="tensors on two devices"):
        fit(tasks.build(preset, small, seed=0).to(GPU), preset, small)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_in_16_bits_it_learns_as_much(small, monkeypatch, name):
    preset = presets.PRESETS[name]
    [exact] = fit(tasks.build(preset, small, seed=0), preset, small)
    monkeypatch.setattr(training, "autocast", lambda device: torch.autocast("cpu", torch.bfloat16))
    [rounded] = fit(model := tasks.build(preset, small, seed=0), preset, small)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert rounded["train_loss"] != exact["train_loss"]  # or no operation was rounded
    assert rounded["train_loss"] == pytest.approx(exact["train_loss"], rel=0.02)
    assert rounded["film_loss"] == pytest.approx(exact["film_loss"], rel=0.05)
