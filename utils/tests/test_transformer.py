"""The encoder against torch's own, and what sets, positions and padding must and must not change."""

import itertools
import math

import pytest
import torch
from torch import nn

from utils import twins
from utils.attention import padding_mask
from utils.transformer import Encoder, EncoderLayer, masked_pool, sinusoidal_positions


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_encoder_layer_equals_torch(norm_first, need_weights):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    for size, heads, masked in itertools.product((1, 9, 33), (1, 4), (False, True)):
        batch, d_model = int(torch.randint(1, 5, (), generator=generator)), heads * 16
        mask = padding_mask(torch.randint(1, size + 1, (batch,), generator=generator), size) if masked else None
        hidden = ~mask[:, 0] if masked else None
        found = twins.differences(
            EncoderLayer(d_model, heads, 48, norm_first=norm_first),
            nn.TransformerEncoderLayer(d_model, heads, 48, dropout=0.0, batch_first=True, norm_first=norm_first),
            lambda ours, x, mask=mask: ours(x, mask=mask, need_weights=need_weights)[0],
            lambda theirs, x, hidden=hidden: theirs(x, src_key_padding_mask=hidden),
            torch.randn(batch, size, d_model),
        )
        assert twins.agree(found), found


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
