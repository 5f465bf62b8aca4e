"""Check that our modules agree with PyTorch's, if the weights are the same: results and all gradients, in two
precisions.
"""

import copy

import torch
from torch import nn

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}  # of an error, relative to the largest entry
NAMES = {  # our names, PyTorch's; replaced in this order
    "cross_attention.": "multihead_attn.",
    "attention.": "self_attn.",
    "mlp.0.": "linear1.",
    "mlp.3.": "linear2.",
    "W_h.": "out_proj.",
    "W_q.": "in_proj_",
    "W_k.": "in_proj_",
    "W_v.": "in_proj_",
}


def with_torch_names(ours):
    """{our name: tensor} → {PyTorch's name: tensor} for attention, an encoder or decoder layer, or a stack of these.

    W_q, W_k and W_v get one name in PyTorch, which keeps them stacked in this order.
    """
    theirs = {}
    for name, tensor in ours.items():
        for our_part, their_part in NAMES.items():
            name = name.replace(our_part, their_part)
        theirs.setdefault(name, []).append(tensor)
    return {name: torch.cat(parts) for name, parts in theirs.items()}


def copy_weights(ours, theirs):
    """Give PyTorch's module `theirs` the weights of `ours`. RuntimeError if one of them lacks a weight."""
    theirs.load_state_dict(with_torch_names(ours.state_dict()))


def max_relative_error(ours, theirs, call_ours, call_theirs, *inputs):
    """{dtype: the largest error of the result and of all gradients} for the dtypes of `TOLERANCE`.

    The modules stay as they are; copies of both get the same random weights. `call_ours` and `call_theirs` are given
    their module and the `inputs`, and return a tensor each, of the same shape. The gradients are those with respect to
    all inputs and all weights. An error is relative to the largest entry of PyTorch's tensor, or to that of the
    gradient of the first input if that is larger (the gradient of the keys' bias is 0 but for rounding).
    """
    errors = {}
    for dtype in TOLERANCE:
        ours_copy, theirs_copy = (copy.deepcopy(module).to(dtype) for module in (ours, theirs))
        for parameter in ours_copy.parameters():  # no weight stays at 0 or 1, where a mix-up would not show
            nn.init.normal_(parameter, mean=0.05, std=0.1)
        copy_weights(ours_copy, theirs_copy)
        x = [one.detach().to(dtype).requires_grad_() for one in inputs]
        h, wanted = call_ours(ours_copy, *x), call_theirs(theirs_copy, *x)
        cotangent = torch.randn_like(h)
        our_x, our_grads = gradients(h, x, ours_copy, cotangent)
        their_x, their_grads = gradients(wanted, x, theirs_copy, cotangent)
        pairs = [
            *zip(our_x, their_x),
            *((grad, their_grads[name]) for name, grad in with_torch_names(our_grads).items()),
        ]
        largest = their_x[0].abs().max()
        relative = [(ours - theirs).abs().max() / torch.maximum(theirs.abs().max(), largest) for ours, theirs in pairs]
        errors[dtype] = max((h - wanted).abs().max() / wanted.abs().max(), *relative).item()
    return errors


def gradients(result, inputs, module, cotangent):
    """The gradients with respect to `inputs`, and {name: gradient} with respect to the module's parameters."""
    names, parameters = zip(*module.named_parameters())
    found = torch.autograd.grad(result, [*inputs, *parameters], cotangent)
    return found[: len(inputs)], dict(zip(names, found[len(inputs) :]))


def within_tolerance(errors):
    """Whether the errors of `max_relative_error` are within the tolerance of their precision."""
    return all(error <= TOLERANCE[dtype] for dtype, error in errors.items())
