"""A twin that differs is found, whatever it is that differs."""

import pytest
import torch
from torch import nn

from utils import twins
from utils.attention import MultiHeadAttention
from utils.transformer import Decoder, Encoder

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


def found(change=lambda module: None, call=lambda module, x: module(x)[0], **options):
    """The differences between our attention and torch's after `change` to a copy of ours."""

    def call_ours(module, x):
        change(module)
        return call(module, x)

    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    return twins.differences(MultiHeadAttention(8, 2), theirs, call_ours, lambda module, x: module(x, x, x)[0], X)


def test_twins_agree():
    assert twins.agree(found()) and list(found()) == [torch.float32, torch.float64]


@torch.no_grad()
def nudge(module):
    module.in_proj.weight[-1, -1] += 1e-4


def fewer_heads(module):
    module.num_heads = 1


@pytest.mark.parametrize("change", [nudge, fewer_heads], ids=lambda change: change.__name__)
def test_other_weights_and_other_heads_are_found(change):
    assert not twins.agree(found(change))


def test_a_missing_gradient_is_found():
    assert not twins.agree(found(call=lambda module, x: module(x, x.detach())[0]))  # the results are equal


def test_only_single_precision_may_differ_by_a_millionth():
    slightly = found(call=lambda module, x: module(x)[0] * (1 + 1e-6))
    assert slightly[torch.float32] < 1e-5 and not twins.agree(slightly)


def test_whole_stacks_have_twins():
    options = {"dropout": 0.0, "batch_first": True}
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, **options), 3, enable_nested_tensor=False)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, **options), 3)
    assert twins.agree(
        twins.differences(Encoder(3, 8, 2, 16), encoder, lambda ours, x: ours(x)[0], lambda theirs, x: theirs(x), X)
    )
    both = (lambda ours, x, m: ours(x, m)[0], lambda theirs, x, m: theirs(x, m))
    assert twins.agree(twins.differences(Decoder(3, 8, 2, 16), decoder, *both, X, X[:, :3]))


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(RuntimeError):
        twins.copy_weights(MultiHeadAttention(8, 2, bias=False), nn.MultiheadAttention(8, 2))


@torch.no_grad()
def without_bias(module):
    module.in_proj.bias.zero_()


@torch.no_grad()
def halved(module):
    module.out_proj.weight *= 0.5


@pytest.mark.parametrize("change", [without_bias, halved], ids=lambda change: change.__name__)
def test_a_weight_that_is_not_used_is_found_whatever_it_starts_at(change):
    assert not twins.agree(found(change))


def test_only_gradients_or_only_results_may_differ_to_be_found():
    assert not twins.agree(found(call=lambda module, x: module(x)[0] + 1e-3))  # the gradients are equal
    other = found(call=lambda module, x: module(x)[0].detach() + 2 * (module(x)[0] - module(x)[0].detach()))
    assert not twins.agree(other) and min(other.values()) > 0.1  # twice the gradients


def test_one_precision_that_differs_is_enough():
    assert not twins.agree({torch.float32: 0.0, torch.float64: 1e-9})
    assert not twins.agree({torch.float32: 1e-4, torch.float64: 0.0})
    assert twins.agree({torch.float32: 9e-6, torch.float64: 9e-11})


def test_names_that_torch_gives():
    assert twins.their_name("layers.0.cross_attention.in_proj.weight") == "layers.0.multihead_attn.in_proj_weight"
    assert twins.their_name("attention.out_proj.bias") == "self_attn.out_proj.bias"
    assert [twins.their_name(f"mlp.{i}.weight") for i in (0, 3)] == ["linear1.weight", "linear2.weight"]
