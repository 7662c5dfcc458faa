"""SUNets against the published counts, and against references written from the paper's description."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segstrat.config import TrialConfig
from segstrat.errors import UserError
from segstrat.models import assemble_model, build_backbone, build_model
from segstrat.models.sunet import Down, SUNet, UNetModule, Up
from segstrat.models.weights import load_backbone_weights
from segstrat.tasks import Task

TASKS = {"semseg": Task("semseg", 5)}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "features", "with_linear"),
    [
        ("sunet64", 5_885_248, 6_910_248),
        ("sunet128", 22_655_360, 24_704_360),
        ("sunet7128", 36_808_832, 39_113_832),
    ],
)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_parameter_counts_are_those_of_the_paper(
    name: str, features: int, with_linear: int, output_stride: int
):
    with torch.device("meta"):
        backbone = SUNet(name, output_stride=output_stride)
        linear = nn.Linear(backbone.channels[-1], 1000)
    assert parameters(backbone) == features
    assert parameters(backbone) + parameters(linear) == with_linear


def test_it_has_the_112_layers_of_the_thesis():
    with torch.device("meta"):
        net = assemble_model(TrialConfig(model="sunet64"), TASKS)

    def convolutions(module: nn.Module) -> list[str]:
        kinds = (nn.Conv2d, nn.ConvTranspose2d)
        return [name for name, layer in module.named_modules() if isinstance(layer, kinds)]

    main_path = [name for name in convolutions(net.backbone) if not name.endswith("projection")]
    assert len(main_path) == 109
    assert len(convolutions(net.heads["semseg"])) == 3


@pytest.mark.parametrize(
    "model", ["sunet64", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sunet128", "sunet7128"))]
)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_logits_have_the_size_of_the_images(model: str, output_stride: int):
    net = build_model(TrialConfig(model=model, width=1 / 64, output_stride=output_stride), TASKS).eval()
    for size in [(512, 512), (333, 500), (32, 45), (127, 65)]:
        images = torch.randn(1, 3, *size)
        with torch.inference_mode():
            logits = net(images)["semseg"]
            (features,) = net.backbone(images)
        assert logits.shape == (1, 5, *size)
        assert torch.isfinite(logits).all()
        assert features.shape[2:] == (_map_side(size[0], output_stride), _map_side(size[1], output_stride))


def _map_side(side: int, stride: int) -> int:
    """Stem and residual block round up, the pools round down."""
    side = -(-side // 4)
    while stride > 4:
        side //= 2
        stride //= 2
    return side


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_an_object_is_seen_where_it_is(output_stride: int):
    # As for the FCNs: mean filters must return a bright line as a blob around the line.
    net = build_model(TrialConfig(model="sunet64", width=1 / 32, output_stride=output_stride), TASKS).eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
            nn.init.zeros_(layer.bias)
    lines = torch.arange(480, 544)
    images = torch.zeros(64, 3, 32, 1024)
    images[torch.arange(64), :, :, lines] = 1000.0
    with torch.inference_mode():
        response = net(images)["semseg"][:, 0].sum(1).double()
    distance = torch.arange(1024)[None] - lines[:, None]
    assert abs(float((response * distance).sum() / response.sum())) < 1.0


def test_dilated_encoder_sees_what_the_strided_one_sees_on_a_coarser_map():
    # The strided encoder on every second cell, and the dilated one on all of them, meet the same inputs.
    torch.manual_seed(0)
    strided = nn.Sequential(Down(4, 0, 0.0), Down(4, 0, 0.0)).double().eval()
    dilated = nn.Sequential(Down(4, 2, 0.0), Down(4, 4, 0.0)).double().eval()
    dilated.load_state_dict(strided.state_dict())
    fine = torch.randn(2, 4, 32, 48, dtype=torch.float64)
    torch.testing.assert_close(dilated(fine)[..., ::8, ::8], strided(fine[..., ::2, ::2]))


def test_dilated_decoder_convolution_is_the_strided_one_on_a_coarser_map():
    torch.manual_seed(0)
    strided, dilated = (Up(4, 4, spacing, 0.0).double().eval() for spacing in (0, 2))
    fine = torch.randn(1, 4, 16, 16, dtype=torch.float64)
    dilated.load_state_dict(strided.state_dict())
    torch.testing.assert_close(dilated.conv2(fine)[..., ::2, ::2], strided.conv2(fine[..., ::2, ::2]))


@pytest.mark.parametrize(("spacing", "size"), [(0, (6, 7)), (0, (5, 8)), (2, (6, 7)), (4, (6, 7))])
def test_transposed_convolution_against_a_loop(spacing: int, size: tuple[int, int]):
    # A transposed convolution scatters: cell (y, x) adds its value times each kernel entry to the output.
    torch.manual_seed(0)
    layer = Up(2, 3, spacing, 0.0).double()
    stride, dilation = (1, 2 * spacing) if spacing else (2, 1)
    padding = 2 * spacing if spacing else 1
    height, width = size if spacing else ((size[0] + 1) // 2, (size[1] + 1) // 2)
    cells = torch.randn(1, 2, height, width, dtype=torch.float64)
    expected = torch.zeros(1, 3, *size, dtype=torch.float64) + layer.conv1.bias[:, None, None]
    for y in range(height):
        for x in range(width):
            for row in range(3):
                for column in range(3):
                    to_y = y * stride + row * dilation - padding
                    to_x = x * stride + column * dilation - padding
                    if 0 <= to_y < size[0] and 0 <= to_x < size[1]:
                        kernel = layer.conv1.weight[:, :, row, column]
                        expected[0, :, to_y, to_x] += cells[0, :, y, x] @ kernel
    torch.testing.assert_close(layer.conv1(cells, output_size=list(size)), expected)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_dropout_follows_every_convolution_of_blocks_and_modules(rate: float):
    net = build_model(TrialConfig(model="sunet64", width=1 / 16, dropout=rate), TASKS)
    calls = []
    for layer in net.modules():
        if isinstance(layer, nn.Dropout):
            assert layer.p == rate
            layer.register_forward_hook(lambda *_: calls.append(1))
    net(torch.randn(2, 3, 64, 64))
    # All of the 109 but the stem.
    assert len(calls) == (108 if rate else 0)


def test_batch_norm_momentum_is_the_published_one():
    net = build_model(TrialConfig(model="sunet64", width=1 / 16), TASKS)
    momenta = {layer.momentum for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert momenta == {0.01}


def test_an_output_stride_that_it_does_not_have_is_refused():
    with pytest.raises(UserError, match="output_stride=4: sunet64 has 8, 16 or 32"):
        build_backbone("sunet64", output_stride=4)
    with pytest.raises(UserError, match="output_stride=16: resnet18 has none"):
        build_backbone("resnet18", output_stride=16)


def test_the_default_output_stride_is_16():
    assert build_backbone("sunet64", width=1 / 16).strides == (16,)


class Published:
    """The authors' network, as functions of a dict with the names of their checkpoint; evaluation mode."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        self.state = state

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.relu(F.batch_norm(x, *(self.state[f"{name}.{key}"] for key in keys)))

    def conv(self, x: torch.Tensor, name: str, **options: int) -> torch.Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **options)

    def deconv(self, x: torch.Tensor, name: str, size: torch.Size) -> torch.Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        odd = (1 - size[0] % 2, 1 - size[1] % 2)
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=odd)

    def module(self, x: torch.Tensor, name: str, levels: int) -> torch.Tensor:
        """A U-Net module at output stride 32, where every level is strided."""
        projected = f"{name}.upsample.conv0.weight" in self.state
        active = self.norm(x, f"{name}.bn.bn0" if projected else f"{name}.down.0.bn0")
        shortcut = self.conv(active, f"{name}.upsample.conv0") if projected else x
        y = self.conv(active, f"{name}.down.0.conv0")
        sizes, outputs = [], []
        for level in range(levels):
            sizes.append(y.shape[2:])
            y = self.conv(self.norm(y, f"{name}.down.{level}.bn1"), f"{name}.down.{level}.conv1", **STRIDED)
            y = self.conv(self.norm(y, f"{name}.down.{level}.bn2"), f"{name}.down.{level}.conv2", padding=1)
            outputs.append(y)
        for level in reversed(range(levels)):
            up = f"{name}.up.{level}"
            y = self.deconv(self.norm(y, f"{up}.bn0"), f"{up}.deconv0", sizes[level])
            y = self.conv(self.norm(y, f"{up}.bn1"), f"{up}.deconv1", padding=1)
            if level > 0:
                y = torch.cat([y, outputs[level - 1]], 1)
        return shortcut + self.conv(self.norm(y, f"{name}.up.0.bn2"), f"{name}.up.0.conv2")

    def features(self, images: torch.Tensor) -> torch.Tensor:
        x = self.conv(images, "features.conv1", stride=2, padding=3)
        active = self.norm(x, "features.residual1.bn.0")
        x = self.conv(active, "features.residual1.conv.0", **STRIDED)
        x = self.conv(self.norm(x, "features.residual1.conv.2"), "features.residual1.conv.4", padding=1)
        x = x + self.conv(active, "features.residual1.shortcut.0", stride=2)
        for stage, (count, levels) in enumerate([(2, 2), (4, 2), (4, 2), (1, 1)], start=1):
            for index in range(count):
                x = self.module(x, f"features.unet{stage}_{index}", levels)
            if stage < 4:
                x = F.avg_pool2d(x, 2)
        return self.norm(x, "features.bn2")


STRIDED = {"stride": 2, "padding": 1}


def published_state(width: int, inner: int, outputs: tuple[int, ...], seed: int) -> dict[str, torch.Tensor]:
    """Random weights under the names of the authors' checkpoint (without its `module.` prefix)."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / max(1, torch.Size(shape[1:]).numel()) ** 0.5

    def conv(name: str, inputs: int, outputs: int, kernel: int, *, transposed: bool = False) -> None:
        channels = (inputs, outputs) if transposed else (outputs, inputs)
        state[f"{name}.weight"] = draw(*channels, kernel, kernel)
        state[f"{name}.bias"] = draw(outputs)

    def norm(name: str, channels: int) -> None:
        for key in ("weight", "bias", "running_mean"):
            state[f"{name}.{key}"] = draw(channels)
        state[f"{name}.running_var"] = draw(channels).square() + 0.5

    conv("features.conv1", 3, width, 7)
    norm("features.residual1.bn.0", width)
    conv("features.residual1.conv.0", width, 2 * width, 3)
    norm("features.residual1.conv.2", 2 * width)
    conv("features.residual1.conv.4", 2 * width, 2 * width, 3)
    conv("features.residual1.shortcut.0", width, 2 * width, 1)
    inputs = 2 * width
    for stage, (count, levels, output) in enumerate(zip((2, 4, 4, 1), (2, 2, 2, 1), outputs, strict=True)):
        for index in range(count):
            name = f"features.unet{stage + 1}_{index}"
            if inputs != output:
                norm(f"{name}.bn.bn0", inputs)
                conv(f"{name}.upsample.conv0", inputs, output, 1)
            else:
                norm(f"{name}.down.0.bn0", inputs)
            conv(f"{name}.down.0.conv0", inputs, inner, 1)
            for level in range(levels):
                for part in (1, 2):
                    norm(f"{name}.down.{level}.bn{part}", inner)
                    conv(f"{name}.down.{level}.conv{part}", inner, inner, 3)
                wide = inner if level == levels - 1 else 2 * inner
                norm(f"{name}.up.{level}.bn0", wide)
                conv(f"{name}.up.{level}.deconv0", wide, inner, 3, transposed=True)
                norm(f"{name}.up.{level}.bn1", inner)
                conv(f"{name}.up.{level}.deconv1", inner, inner, 3)
            norm(f"{name}.up.0.bn2", inner)
            conv(f"{name}.up.0.conv2", inner, output, 1)
            inputs = output
    norm("features.bn2", inputs)
    return state


def test_the_authors_weights_give_the_authors_features(tmp_path):
    state = published_state(8, 8, (32, 64, 96, 128), seed=0)
    content = {f"module.{name}": value for name, value in state.items()}
    content |= {"module.linear.weight": torch.randn(1000, 128), "module.linear.bias": torch.randn(1000)}
    path = tmp_path / "checkpoint_64_2441_residual.pth.tar"
    torch.save({"epoch": 90, "arch": "sunet64", "state_dict": content, "best_prec1": 70.5}, path)

    backbone = build_backbone("sunet64", width=1 / 8, output_stride=32).eval()
    load_backbone_weights(backbone, str(path))
    images = torch.randn(2, 3, 97, 130)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(images)[-1], Published(state).features(images))


def test_a_module_keeps_its_input_where_the_branch_is_dropped():
    torch.manual_seed(0)
    module = UNetModule(8, 4, 8, levels=1, dilation=1, dropout=0.0, drop_rate=0.9)
    x = torch.randn(64, 8, 4, 4)
    kept = (module(x) == x).flatten(1).all(1)
    assert 40 <= int(kept.sum()) < 64
    assert not (module.eval()(x) == x).flatten(1).all(1).any()
