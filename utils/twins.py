"""Ours beside torch's own: the same weights, then results and all gradients, in two precisions."""

import copy

import torch
from torch import nn

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}  # of a difference, relative to the largest entry
NAMES = {  # ours, torch's; in this order
    "cross_attention.": "multihead_attn.",
    "attention.": "self_attn.",
    "in_proj.": "in_proj_",
    "mlp.0.": "linear1.",
    "mlp.3.": "linear2.",
}


def their_name(name):
    """What torch calls our parameter `name` of attention, of an encoder or decoder layer, or of a stack of these."""
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


def copy_weights(ours, theirs):
    """Give torch's module `theirs` the weights of `ours`. RuntimeError where one of them lacks a weight."""
    theirs.load_state_dict({their_name(name): value for name, value in ours.state_dict().items()})


def differences(ours, theirs, call_ours, call_theirs, *inputs):
    """{dtype: the largest difference of result and gradients} for the dtypes of `TOLERANCE`.

    Both modules get the same random weights, in copies of their own. `call_ours` and `call_theirs` get their module and
    the `inputs`, and return a tensor each, of the same shape. The gradients are those of all inputs and of all weights;
    a difference is relative to the largest entry of torch's tensor, or to that of its first input's gradient, if larger
    (the gradient of the keys' bias is 0 but for rounding).
    """
    found = {}
    for dtype in TOLERANCE:
        mine, its = (copy.deepcopy(module).to(dtype) for module in (ours, theirs))
        for parameter in mine.parameters():  # no weight stays at 0 or 1, where a mix-up would not show
            nn.init.normal_(parameter, mean=0.05, std=0.1)
        copy_weights(mine, its)
        x = [one.detach().to(dtype).requires_grad_() for one in inputs]
        h, wanted = call_ours(mine, *x), call_theirs(its, *x)
        cotangent = torch.randn_like(h)
        parameters = dict(its.named_parameters())
        parameters = [parameters[their_name(name)] for name, _ in mine.named_parameters()]
        got = torch.autograd.grad(h, [*x, *mine.parameters()], cotangent)
        want = torch.autograd.grad(wanted, [*x, *parameters], cotangent)
        apart = [((h - wanted).abs().max() / wanted.abs().max()).item()]
        for one, other in zip(got, want, strict=True):
            scale = torch.maximum(other.abs().max(), want[0].abs().max())
            apart.append(((one - other).abs().max() / scale).item())
        found[dtype] = max(apart)
    return found


def agree(found):
    """Whether `differences` are within the tolerance of their precision."""
    return all(difference <= TOLERANCE[dtype] for dtype, difference in found.items())
