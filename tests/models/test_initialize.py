"""Initial values: a function of seed and name, with the variances and zeros that the thesis states."""

import math

import pytest
import torch
from torch import nn

from segstrat.config import TrialConfig
from segstrat.models import build_backbone, build_model
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


def test_a_module_without_a_rule_is_refused():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    with pytest.raises(TypeError, match=r"no initialization rule for Odd at backbone\.0"):
        initialize(nn.Sequential(Odd()), 0, prefix="backbone")


def test_the_learnable_upsampling_survives_a_checkpoint():
    layer = LearnableUpsample(3, 4)
    nn.init.normal_(layer.weight)
    published = nn.ConvTranspose2d(3, 3, kernel_size=8, stride=4, bias=False)
    published.load_state_dict(layer.state_dict())
    assert torch.equal(published.weight, layer.weight)
