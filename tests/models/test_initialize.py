"""Initial values: a function of seed and name, with the variances and zeros that the thesis states."""

import math

import pytest
import torch
from torch import nn

import segstrat.models as models
from segstrat.config import BACKBONES, TrialConfig
from segstrat.errors import UserError
from segstrat.models import build_backbone, build_model
from segstrat.models.backbone import Backbone
from segstrat.models.initialize import initialize
from segstrat.models.upsample import LearnableUpsample
from segstrat.tasks import Task

SEMSEG, PARTS = Task("semseg", 5), Task("parts", 3)


def state(**fields) -> dict[str, torch.Tensor]:
    tasks = fields.pop("tasks", {"semseg": SEMSEG})
    return build_model(TrialConfig(**({"width": 1 / 16} | fields)), tasks).state_dict()


@pytest.mark.parametrize("model", ["fcn8s", "sunet64"])
def test_shared_parts_start_alike_in_all_arms(model: str):
    alone = state(model=model)
    multi_task = state(model=model, tasks={"parts": PARTS, "semseg": SEMSEG})
    assert set(alone) < set(multi_task)
    for name, value in alone.items():
        assert torch.equal(value, multi_task[name]), name
    for name, value in state(model=model, dropout=0.2, weight_decay=0.1, epochs=1).items():
        assert torch.equal(value, alone[name]), name


def test_a_backbone_alone_starts_as_in_its_model():
    whole = build_model(TrialConfig(width=1 / 16, seed=3), {"semseg": SEMSEG}).backbone.state_dict()
    for name, value in build_backbone("resnet18", width=1 / 16, seed=3).state_dict().items():
        assert torch.equal(value, whole[name]), name


def test_it_neither_reads_nor_moves_the_global_generator():
    torch.manual_seed(1)
    first = state()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = state()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_gives_other_values():
    first, second = state(seed=0), state(seed=1)
    assert not torch.equal(first["backbone.conv1.weight"], second["backbone.conv1.weight"])
    # Two layers of one shape differ as well.
    layers = [f"backbone.layer1.{block}.conv1.weight" for block in (0, 1)]
    assert not torch.equal(first[layers[0]], first[layers[1]])


@pytest.mark.parametrize("name", ["resnet18", "alexnet", "sunet64"])
def test_convolutions_are_he_normal(name: str):
    net = build_backbone(name, width=1 / 4)
    for path, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.weight.numel() > 5000:
            weight = layer.weight.detach()
            # Transposed: (C_in, C_out, k, k), and a quarter of a stride-2 kernel meets an output pixel.
            transposed = isinstance(layer, nn.ConvTranspose2d)
            fan_in = weight.shape[0] * 9 / layer.stride[0] ** 2 if transposed else weight[0].numel()
            # A quarter of nine is not whole; the fan is rounded down.
            expected = math.sqrt(2 / (int(fan_in) if transposed else fan_in))
            assert float(weight.std()) == pytest.approx(expected, rel=0.05), path
            assert abs(float(weight.mean())) < 0.05 * expected, path
            assert layer.bias is None or not layer.bias.any()


def test_activations_keep_their_scale_through_a_raw_network():
    # Without batch norm a wrong variance would vanish or explode over thirteen layers.
    net = build_backbone("vgg16", width=1 / 4).eval()
    with torch.inference_mode():
        deepest = net(torch.randn(1, 3, 224, 224))[-1]
    assert 0.05 < float(deepest.square().mean().sqrt()) < 20


def test_scores_start_at_zero_and_upsampling_as_bilinear():
    values = state(model="fcn8s")
    scores = [value for name, value in values.items() if ".score." in name]
    assert len(scores) == 6
    assert not any(value.any() for value in scores)
    kernel = values["heads.semseg.upsample.weight"]
    assert kernel.shape == (5, 5, 16, 16)
    line = [(index + 0.5) / 8 for index in range(8)]
    expected = torch.tensor(line + line[::-1])
    torch.testing.assert_close(kernel[2, 2], torch.outer(expected, expected))
    assert not kernel[2, 1].any()


def test_the_kernel_of_fcn32s_is_that_of_the_thesis():
    kernel = state(model="fcn32s")["heads.semseg.upsample.weight"]
    published = nn.ConvTranspose2d(5, 5, kernel_size=64, stride=32, bias=False)
    assert kernel.shape == published.weight.shape


class Blur(nn.Module):
    """Layers and buffers of a kind that no network of the project has."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("kernel", torch.full((3, 1, 5, 5), 1 / 25), persistent=False)
        self.register_buffer("order", torch.arange(7).flip(0))
        self.register_buffer("projection", torch.randn(channels, channels))
        self.shift = torch.linspace(0, 1, channels)
        self.norm = nn.LayerNorm(channels)
        self.line = nn.BatchNorm1d(channels)
        self.attention = nn.MultiheadAttention(channels, 2)
        self.table = nn.Parameter(nn.init.trunc_normal_(torch.empty(9, channels), std=0.02))
        self.gamma = nn.Parameter(1e-6 * torch.ones(channels))
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(channels, channels, 1))


class OwnBackbone(Backbone):
    """A backbone as a user may write it."""

    layer: type[nn.Module] = Blur

    def __init__(self, name: str, width: float = 1.0) -> None:
        super().__init__(name, width, channels=(8,), strides=(32,), centers=(0,))
        self.stem = nn.Conv2d(3, 8, 3, stride=32, padding=1)
        self.part = self.layer(8)

    def forward(self, images_BCHW: torch.Tensor) -> list[torch.Tensor]:
        return [self.stem(images_BCHW)]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> type[OwnBackbone]:
    monkeypatch.setitem(BACKBONES, "own", "own")
    monkeypatch.setitem(models.FAMILIES, "own", OwnBackbone)
    return OwnBackbone


def values_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())


def test_buffers_and_layers_of_any_kind_keep_what_their_constructors_set(own):
    part = build_backbone("own").part
    assert torch.equal(part.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    assert torch.equal(part.kernel, torch.full((3, 1, 5, 5), 1 / 25))
    assert part.order.tolist() == [6, 5, 4, 3, 2, 1, 0]
    assert torch.equal(part.shift, torch.linspace(0, 1, 8))
    assert torch.equal(part.norm.weight, torch.ones(8))
    assert not part.norm.bias.any()
    assert torch.equal(part.line.running_var, torch.ones(8))
    assert torch.equal(part.gamma, 1e-6 * torch.ones(8))
    assert 0.01 < float(part.table.detach().std()) < 0.03
    bound = math.sqrt(6 / (8 + 24))  # Xavier uniform of 8 → 24
    assert 0.5 * bound < float(part.attention.in_proj_weight.detach().abs().max()) <= bound
    lengths = part.normed.parametrizations.weight.original0
    torch.testing.assert_close(part.normed.weight.norm(dim=1).flatten(), lengths.flatten())


def test_what_constructors_draw_depends_on_the_seed_alone(own):
    torch.manual_seed(1)
    alone = values_of(build_backbone("own", seed=3))
    state = torch.get_rng_state()
    whole = segmenter("own", seed=3, tasks={"parts": PARTS, "semseg": SEMSEG})
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()
    for name, value in values_of(whole.backbone).items():
        assert torch.equal(value, alone[name]), name
    other = values_of(build_backbone("own", seed=4))
    drawn = {name for name, value in alone.items() if not torch.equal(value, other[name])}
    assert {"stem.weight", "part.table", "part.projection", "part.attention.in_proj_weight"} <= drawn
    assert not drawn & {"part.mean", "part.kernel", "part.order", "part.gamma"}


def segmenter(backbone: str, seed: int, tasks: dict[str, Task]) -> nn.Module:
    config = TrialConfig(model="fcn32s", width=1, seed=seed)
    # A config checks the name against the project's own.
    object.__setattr__(config, "backbone", backbone)
    return build_model(config, tasks)


def test_batch_norms_of_any_kind_are_frozen(own):
    backbone = build_backbone("own")
    backbone.freeze_batch_norm()
    assert not backbone.train().part.line.training
    assert not backbone.part.line.weight.requires_grad
    assert backbone.part.norm.weight.requires_grad


class Unset(nn.Module):
    """Allocates a parameter, and sets it nowhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(channels))


class UnsetBuffer(nn.Module):
    """Allocates a buffer, and sets it nowhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.empty(channels, 5))


class Lazy(nn.Module):
    """Gets its shape with the first batch, too late."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.scale = nn.UninitializedParameter()


@pytest.mark.parametrize("part", [Unset, UnsetBuffer, Lazy])
def test_what_no_constructor_sets_is_refused(own, monkeypatch, part: type[nn.Module]):
    monkeypatch.setattr(own, "layer", part)
    with pytest.raises(
        UserError, match=rf"^backbone\.part\.scale has no value once {part.__name__} is built"
    ):
        build_backbone("own")


def test_transposed_convolutions_of_few_channels_and_groups_have_a_variance():
    layers = nn.Sequential(
        nn.ConvTranspose2d(1, 500, 1, stride=2), nn.ConvTranspose2d(64, 64, 4, 2, groups=64)
    )
    initialize(layers, 0)
    # An output pixel of the second sees 16 / 4 cells of the one channel of its group.
    assert float(layers[0].weight.detach().std()) == pytest.approx(math.sqrt(2), rel=0.1)
    assert float(layers[1].weight.detach().std()) == pytest.approx(math.sqrt(2 / 4), rel=0.1)


def test_the_learnable_upsampling_survives_a_checkpoint():
    layer = LearnableUpsample(3, 4)
    nn.init.normal_(layer.weight)
    published = nn.ConvTranspose2d(3, 3, kernel_size=8, stride=4, bias=False)
    published.load_state_dict(layer.state_dict())
    assert torch.equal(published.weight, layer.weight)
