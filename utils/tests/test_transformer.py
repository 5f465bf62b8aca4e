"""The encoder against torch's own, and what sets, positions and padding must and must not change."""

import itertools
import math

import pytest
import torch
from torch import nn

from utils.attention import padding_mask
from utils.tests.test_attention import close
from utils.transformer import Encoder, EncoderLayer, masked_pool, sinusoidal_positions

NAMES = {
    "attention.in_proj.": "self_attn.in_proj_",
    "attention.out_proj.": "self_attn.out_proj.",
    "mlp.0.": "linear1.",
    "mlp.3.": "linear2.",
}


def torch_layer(ours, d_model, heads, d_hidden, **options):
    """`nn.TransformerEncoderLayer` with the weights of our layer `ours`."""
    theirs = nn.TransformerEncoderLayer(d_model, heads, d_hidden, dropout=0.0, batch_first=True, **options)
    weights = {}
    for name, value in ours.state_dict().items():
        prefix = next((old for old in NAMES if name.startswith(old)), "")
        weights[NAMES.get(prefix, "") + name[len(prefix) :]] = value
    theirs.load_state_dict(weights)
    return theirs


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_encoder_layer_equals_torch(dtype, norm_first):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    for size, heads, masked in itertools.product((1, 9, 33), (1, 4), (False, True)):
        batch, d_model = int(torch.randint(1, 5, (), generator=generator)), heads * 16
        ours = EncoderLayer(d_model, heads, 48, norm_first=norm_first).to(dtype)
        for parameter in ours.parameters():  # no weight left at 0 or 1, where a mix-up would not show
            nn.init.normal_(parameter, mean=0.1, std=0.3)
        theirs = torch_layer(ours, d_model, heads, 48, norm_first=norm_first, dtype=dtype)
        x = torch.randn(batch, size, d_model, dtype=dtype, requires_grad=True)
        mask = padding_mask(torch.randint(1, size + 1, (batch,), generator=generator), size) if masked else None
        h, _ = ours(x, mask=mask)
        wanted = theirs(x, src_key_padding_mask=~mask[:, 0] if masked else None)
        assert close(h, wanted, dtype)
        assert close(ours(x, mask=mask, need_weights=True)[0], wanted, dtype)
        cotangent = torch.randn_like(h)
        got = dict(zip(("x", *dict(ours.named_parameters())), grads(h, x, ours, cotangent), strict=True))
        want = dict(zip(("x", *dict(theirs.named_parameters())), grads(wanted, x, theirs, cotangent), strict=True))
        for name, gradient in got.items():
            prefix = next((old for old in NAMES if name.startswith(old)), "")
            its = want[NAMES.get(prefix, "") + name[len(prefix) :]]
            scale = max(its.abs().max(), want["x"].abs().max())
            assert (gradient - its).abs().max() <= scale * (1e-5 if dtype == torch.float32 else 1e-10), name


def grads(h, x, module, cotangent):
    return torch.autograd.grad(h, [x, *module.parameters()], cotangent)


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_is_equivariant_and_returns_every_map(norm_first):
    torch.manual_seed(0)
    encoder, x, order = Encoder(3, 16, 4, 32, norm_first=norm_first), torch.randn(2, 7, 16), torch.randperm(7)
    h, maps = encoder(x, need_weights=True)
    assert torch.allclose(encoder(x[:, order])[0], h[:, order], atol=1e-5)
    assert [a.shape for a in maps] == [(2, 4, 7, 7)] * 3 and encoder(x)[1] == [None] * 3


def test_sinusoidal_positions():
    table = sinusoidal_positions(50, 8)
    assert table.shape == (50, 8) and table[0].tolist() == [0.0, 1.0] * 4
    for i in range(4):
        angle = 7 / 10000 ** (2 * i / 8)
        assert torch.allclose(table[7, 2 * i : 2 * i + 2], torch.tensor([math.sin(angle), math.cos(angle)]), atol=1e-6)
    with pytest.raises(ValueError, match="use an even number"):
        sinusoidal_positions(5, 7)


def test_masked_pool():
    h = torch.tensor([[[1.0, -4.0], [3.0, -2.0], [9.0, 9.0]], [[5.0, 5.0]] * 3])
    mask = torch.tensor([[True, True, False], [False] * 3])
    assert masked_pool(h, mask).tolist() == [[2.0, -3.0, 3.0, -2.0], [0.0] * 4]
