"""A module that differs from PyTorch's is found, whatever it is that differs."""

import pytest
import torch
from torch import nn

from utils import parity
from utils.attention import MultiHeadAttention
from utils.transformer import Decoder, Encoder

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


def found(change=lambda module: None, call=lambda module, x: module(x)[0], **options):
    """The errors of our attention relative to PyTorch's, after `change` to a copy of ours."""

    def call_ours(module, x):
        change(module)
        return call(module, x)

    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    return parity.max_relative_error(
        MultiHeadAttention(8, 2), theirs, call_ours, lambda module, x: module(x, x, x)[0], X
    )


def test_equal_modules_are_within_tolerance():
    assert parity.within_tolerance(found()) and list(found()) == [torch.float32, torch.float64]


@torch.no_grad()
def nudge(module):
    module.W_v.weight[-1, -1] += 1e-4


def fewer_heads(module):
    module.num_heads = 1


@pytest.mark.parametrize("change", [nudge, fewer_heads], ids=lambda change: change.__name__)
def test_other_weights_and_other_heads_are_found(change):
    assert not parity.within_tolerance(found(change))


def test_a_missing_gradient_is_found():
    assert not parity.within_tolerance(found(call=lambda module, x: module(x, x.detach())[0]))  # the results are equal


def test_only_single_precision_may_differ_by_a_millionth():
    slightly = found(call=lambda module, x: module(x)[0] * (1 + 1e-6))
    assert slightly[torch.float32] < 1e-5 and not parity.within_tolerance(slightly)


def test_whole_stacks_equal_pytorchs():
    options = {"dropout": 0.0, "batch_first": True}
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, **options), 3, enable_nested_tensor=False)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, **options), 3)
    assert parity.within_tolerance(
        parity.max_relative_error(
            Encoder(3, 8, 2, 16), encoder, lambda ours, x: ours(x)[0], lambda theirs, x: theirs(x), X
        )
    )
    both = (lambda ours, x, m: ours(x, m)[0], lambda theirs, x, m: theirs(x, m))
    assert parity.within_tolerance(parity.max_relative_error(Decoder(3, 8, 2, 16), decoder, *both, X, X[:, :3]))


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(RuntimeError):
        parity.copy_weights(MultiHeadAttention(8, 2, bias=False), nn.MultiheadAttention(8, 2))


@torch.no_grad()
def without_bias(module):
    module.W_q.bias.zero_()


@torch.no_grad()
def halved(module):
    module.W_h.weight *= 0.5


@pytest.mark.parametrize("change", [without_bias, halved], ids=lambda change: change.__name__)
def test_a_weight_that_is_not_used_is_found_whatever_it_starts_at(change):
    assert not parity.within_tolerance(found(change))


def test_only_gradients_or_only_results_may_differ_to_be_found():
    assert not parity.within_tolerance(found(call=lambda module, x: module(x)[0] + 1e-3))  # the gradients are equal
    other = found(call=lambda module, x: module(x)[0].detach() + 2 * (module(x)[0] - module(x)[0].detach()))
    assert not parity.within_tolerance(other) and min(other.values()) > 0.1  # twice the gradients


def test_one_precision_that_differs_is_enough():
    assert not parity.within_tolerance({torch.float32: 0.0, torch.float64: 1e-9})
    assert not parity.within_tolerance({torch.float32: 1e-4, torch.float64: 0.0})
    assert parity.within_tolerance({torch.float32: 9e-6, torch.float64: 9e-11})


def test_names_that_pytorch_gives():
    ours = {f"layers.0.cross_attention.W_{letter}.weight": torch.full((2, 2), i) for i, letter in enumerate("qkv")}
    [(name, stacked)] = parity.with_torch_names(ours).items()
    assert name == "layers.0.multihead_attn.in_proj_weight" and stacked[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert [*parity.with_torch_names({"attention.W_h.bias": torch.ones(2)})] == ["self_attn.out_proj.bias"]
    mlp = parity.with_torch_names({f"mlp.{i}.weight": torch.ones(2) for i in (0, 3)})
    assert [*mlp] == ["linear1.weight", "linear2.weight"]
