"""FCN heads: sizes, geometry and dropout, on every backbone."""

import pytest
import torch
from torch import nn

from segstrat.config import BACKBONES, FCN_BACKBONES, TrialConfig
from segstrat.errors import UserError
from segstrat.models import build_model
from segstrat.models.initialize import ScoreLayer
from segstrat.models.segmenter import Segmenter
from segstrat.tasks import Task

HEADS = ("fcn32s", "fcn16s", "fcn8s")
# The first backbone of each family, and two whose blocks differ from it.
FIRST = {BACKBONES[name]: name for name in reversed(FCN_BACKBONES)}
KINDS = (*FIRST.values(), "resnet50", "vgg16_bn")


def build(model: str, backbone: str = "resnet18", classes: int = 3, **fields) -> Segmenter:
    # A thinner SqueezeNet squeezes to one channel, whose ReLU may be dead.
    width = 1 / 4 if backbone == "squeezenet1_1" else 1 / 16
    config = TrialConfig(model=model, backbone=backbone, **({"width": width} | fields))
    return build_model(config, {"semseg": Task("semseg", classes)})


def randomize_scores(net: Segmenter) -> None:
    """Score layers start at zero, which would make every logit zero."""
    for layer in net.modules():
        if isinstance(layer, ScoreLayer):
            nn.init.normal_(layer.weight)


@pytest.mark.parametrize("backbone", FCN_BACKBONES)
@pytest.mark.parametrize("head", HEADS)
def test_logits_have_the_size_of_the_images(head: str, backbone: str):
    net = build(head, backbone).eval()
    for size in [(32, 32), (33, 47), (96, 65)]:
        images = torch.randn(1, 3, *size)
        assert net(images)["semseg"].shape == (1, 3, *size)
        features = net.backbone(torch.randn(1, 3, 96, 96))
        assert [feature.shape[1] for feature in features] == list(net.backbone.channels)


def test_a_thesis_crop_and_an_odd_image_at_full_width():
    net = build("fcn32s", classes=21, width=1.0).eval()
    for size in [(512, 512), (333, 500)]:
        with torch.inference_mode():
            assert net(torch.randn(1, 3, *size))["semseg"].shape == (1, 21, *size)


@pytest.mark.parametrize("backbone", ["resnet18", "alexnet", "squeezenet1_1"])
@pytest.mark.parametrize("head", HEADS)
def test_a_shifted_image_gives_shifted_logits(head: str, backbone: str):
    # The network repeats itself every 32 pixels, whatever the finest map is: all heads use the coarsest too.
    torch.manual_seed(0)
    net = build(head, backbone).eval()
    randomize_scores(net)
    images = torch.randn(1, 3, 64, 992)
    with torch.inference_mode():
        here = net(images[..., 32:])["semseg"]
        there = net(images[..., :-32])["semseg"]
    interior = slice(352, 608)  # farther from the border than half a receptive field
    shifted = slice(384, 640)
    torch.testing.assert_close(here[..., interior], there[..., shifted], rtol=1e-3, atol=1e-4)
    assert (here[..., interior] - here[..., shifted]).abs().max() > 1e-2


@pytest.mark.parametrize("backbone", KINDS)
@pytest.mark.parametrize("head", HEADS)
def test_an_object_is_seen_where_it_is(head: str, backbone: str):
    # With every kernel a mean filter, a bright line must come back as a blob around the line. The mean over
    # one period of line positions cancels what subsampling does to a single one.
    net = build(head, backbone).eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    lines = torch.arange(496, 528)
    images = torch.zeros(32, 3, 64, 1024)
    images[torch.arange(32), :, :, lines] = 1000.0
    with torch.inference_mode():
        response = net(images)["semseg"][:, 0].sum(1).double()
    distance = torch.arange(1024)[None] - lines[:, None]
    error = float((response * distance).sum() / response.sum())
    # Kernels of even size can be off by half a pixel.
    assert abs(error) < 1.0


def test_logits_do_not_fade_towards_the_border():
    net = build("fcn32s").eval()
    head = net.heads["semseg"]
    scores = torch.full((1, 3, 4, 4), 2.0)
    torch.testing.assert_close(head.upsample(scores, (128, 128)), torch.full((1, 3, 128, 128), 2.0))


@pytest.mark.parametrize(
    ("backbone", "count"),
    [("resnet18", 1), ("squeezenet1_1", 1), ("vgg16", 2), ("alexnet", 2)],
)
def test_dropout_acts_where_the_docs_say(backbone: str, count: int):
    assert not any(isinstance(layer, nn.Dropout) for layer in build("fcn8s", backbone).modules())
    torch.manual_seed(0)
    net = build("fcn8s", backbone, dropout=0.3)
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Dropout)]
    assert [layer.p for layer in layers] == [0.3] * count
    seen = []
    for layer in layers:
        layer.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    net(torch.rand(2, 3, 64, 64))
    assert len(seen) == count
    for before, after in seen:
        dropped = ((after == 0) & (before != 0)).sum() / (before != 0).sum()
        assert 0.15 < dropped < 0.45
    # The last one stands in front of the score layer of the coarsest map.
    assert seen[-1][0].shape[1] == net.backbone.channels[-1]


def test_an_image_smaller_than_the_stride_is_refused():
    with pytest.raises(UserError, match=r"image of 31×64 pixels is smaller than the stride of resnet18, 32"):
        build("fcn32s")(torch.randn(1, 3, 31, 64))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbone": "vgg16", "freeze_batch_norm": True}, "vgg16 has no batch normalization"),
        ({"backbone": "alexnet", "stochastic_depth": 0.1}, r"stochastic_depth=0\.1: alexnet has none"),
        ({"backbone": "squeezenet1_1", "stochastic_depth": 0.1}, "squeezenet1_1 has none"),
    ],
)
def test_a_field_that_the_backbone_does_not_have_is_refused(fields: dict, message: str):
    with pytest.raises(UserError, match=message):
        build("fcn32s", **fields)


def test_it_learns_to_tell_two_halves_apart():
    # Both the score layer and, after it, the backbone must get a gradient through the zero start.
    torch.manual_seed(0)
    net = build("fcn8s", classes=2)
    images = torch.randn(2, 3, 64, 64) * 0.1
    images[..., 32:] += 1.0
    target = torch.zeros(2, 64, 64, dtype=torch.long)
    target[..., 32:] = 1
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    first = net.backbone.conv1.weight.detach().clone()
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images)["semseg"], target)
        loss.backward()
        optimizer.step()
    assert loss < 0.2
    assert not torch.equal(first, net.backbone.conv1.weight)
