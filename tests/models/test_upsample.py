"""The fast learnable upsampling against the transposed convolution that it stands for."""

import pytest
import torch
import torch.nn.functional as F

from segstrat.models.upsample import (
    LearnableUpsample,
    _extend,
    _Surroundings,
    bilinear_kernel,
    bilinear_upsample,
)


@pytest.mark.parametrize(
    ("stride", "center", "kernel_size"),
    [(32, None, 64), (32, 0.0, 64), (32, 15.0, 64), (8, 0.0, 16), (2, 0.5, 4), (2, 0.0, 3)],
)
def test_equals_conv_transpose2d(stride: int, center: float | None, kernel_size: int) -> None:
    torch.manual_seed(0)
    layer = LearnableUpsample(3, stride, center, kernel_size).double()
    torch.nn.init.normal_(layer.weight)
    cells = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    size = (3 * stride + 1, 4 * stride + 2)

    # Uncropped, the transposed convolution centres cell i on stride · i + (kernel_size − 1) / 2; one cell
    # of padding in front moves that by a stride.
    wanted = (stride - 1) / 2 if center is None else center
    start = round((kernel_size - 1) / 2 + stride - wanted + 0.25)
    full = F.conv_transpose2d(F.pad(cells, (1, 2, 1, 2), mode="replicate"), layer.weight, stride=stride)
    expected = full[..., start : start + size[0], start : start + size[1]]
    output = layer(cells, size)

    torch.testing.assert_close(output, expected, rtol=0, atol=1e-10)
    seed = torch.randn_like(output)
    inputs = (cells, layer.weight)
    for got, want in zip(
        torch.autograd.grad(output, inputs, seed), torch.autograd.grad(expected, inputs, seed), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-8)


def test_bilinear_start_interpolates_a_ramp() -> None:
    layer = LearnableUpsample(2, 4)
    with torch.no_grad():
        layer.weight.copy_(bilinear_kernel(2, 8))
    ramp = torch.arange(6.0).expand(1, 2, 6, 6)
    row = layer(ramp, (24, 24))[0, 1, 10]
    # Cell i covers pixels 4i … 4i + 3, so that pixel p lies at cell (p − 1.5) / 4; the border is flat.
    expected = ((torch.arange(24) - 1.5) / 4).clamp(0, 5)
    torch.testing.assert_close(row, expected)


@pytest.mark.parametrize("center", [0.0, 2.0, 3.5, 6.0])
def test_fixed_bilinear_puts_cells_on_their_centre(center: float) -> None:
    ramp = torch.arange(9.0).expand(1, 1, 9, 9)
    row = bilinear_upsample(ramp, (60, 60), stride=8, center=center)[0, 0, 30]
    expected = ((torch.arange(60) - center) / 8).clamp(0, 8)
    assert (row - expected).abs().max() <= 0.5 / 8 + 1e-6


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("total", [(5, 5), (4, 7), (6, 4), (3, 8)])
@pytest.mark.parametrize("size", [(4, 4), (1, 2)])
def test_the_gradient_of_the_surroundings_is_that_of_the_plain_slices(
    before: int, total: tuple[int, int], size: tuple[int, int]
) -> None:
    """To the last bit: the sums have the order of automatic differentiation."""
    torch.manual_seed(0)
    scores = torch.randn(2, 3, *size, requires_grad=True)
    around = _Surroundings.apply(scores, before, total)

    cells = _extend(scores, before, total)
    rows, columns = total[0] - 1, total[1] - 1
    taps = [cells[..., 1 - y : 1 - y + rows, 1 - x : 1 - x + columns] for y in (0, 1) for x in (0, 1)]
    plain = torch.stack(taps, dim=-1).permute(0, 2, 3, 1, 4).flatten(3)

    assert torch.equal(around, plain)
    seed = torch.randn_like(plain)
    (got,), (want,) = (torch.autograd.grad(output, scores, seed) for output in (around, plain))
    assert torch.equal(got, want)
