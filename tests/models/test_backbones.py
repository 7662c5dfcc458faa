"""Backbones against torchvision: the same state dict gives the same features on the same images."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.vgg import make_layers

from segstrat.config import BACKBONES, FCN_BACKBONES, MODELS, TrialConfig
from segstrat.models import assemble_backbone, assemble_model, build_backbone
from segstrat.models.backbone import Backbone
from segstrat.models.resnet import BottleneckBlock, ResidualBlock
from segstrat.models.weights import load_backbone_weights
from segstrat.tasks import Task


def test_every_model_and_backbone_that_a_config_accepts_can_be_built():
    configs = [TrialConfig(model=model) for model in MODELS]
    configs += [TrialConfig(backbone=backbone) for backbone in FCN_BACKBONES]
    with torch.device("meta"):
        built = [assemble_model(config, {"semseg": Task("semseg", 2)}).backbone.name for config in configs]
    assert built == [config.backbone for config in configs]
    assert set(built) == set(BACKBONES)


def randomize(net: nn.Module, seed: int = 0) -> nn.Module:
    """Random parameters and batch-norm statistics, so that no layer is an identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if value.dtype.is_floating_point:
                scale = max(1, value[0].numel()) ** -0.5 if value.ndim > 1 else 0.1
                value.normal_(generator=generator).mul_(scale)
                if name.endswith("running_var"):
                    value.square_().add_(0.5)
    return net.eval()


def load(backbone: Backbone, published: nn.Module, folder: Path) -> Backbone:
    """Loads a torchvision network's weights through a file."""
    path = folder / "published.pth"
    torch.save(published.state_dict(), path)
    load_backbone_weights(backbone, str(path))
    path.unlink()
    return backbone.eval()


def resnet_features(net: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
    maps = []
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = stage(x)
        maps.append(x)
    return maps


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",  # basic blocks
        "resnet50",  # bottlenecks
        pytest.param("resnet34", marks=pytest.mark.slow),
        pytest.param("resnet101", marks=pytest.mark.slow),
    ],
)
def test_resnet_features_are_torchvisions(name: str, tmp_path: Path):
    published = randomize(torchvision.models.get_model(name))
    backbone = load(build_backbone(name), published, tmp_path)
    images = torch.randn(2, 3, 65, 96)
    with torch.inference_mode():
        for ours, theirs in zip(backbone(images), resnet_features(published, images), strict=True):
            assert torch.equal(ours, theirs)


def test_squeezenet_features_are_torchvisions(tmp_path: Path):
    published = randomize(torchvision.models.squeezenet1_1(num_classes=7))
    backbone = load(build_backbone("squeezenet1_1"), published, tmp_path)
    images = torch.randn(2, 3, 67, 96)
    with torch.inference_mode():
        maps = backbone(images)
        assert torch.equal(maps[-1], published.features(images))
        assert torch.equal(maps[-2], published.features[:8](images))
        assert torch.equal(maps[0], published.features[:5](images))


def narrow_vgg(name: str) -> nn.Module:
    """torchvision's VGG-16 with an eighth of the channels, but its own forward."""
    sizes = (8, 8, "M", 16, 16, "M", 32, 32, 32, "M", 64, 64, 64, "M", 64, 64, 64, "M")
    net = torchvision.models.VGG(make_layers(sizes, batch_norm=name == "vgg16_bn"), init_weights=False)
    net.classifier[0] = nn.Linear(64 * 7 * 7, 512)
    net.classifier[3] = nn.Linear(512, 512)
    net.classifier[6] = nn.Linear(512, 10)
    return net


@pytest.mark.parametrize(
    ("name", "published", "width", "side", "center"),
    [
        ("vgg16", lambda: narrow_vgg("vgg16"), 1 / 8, 224, 3),
        ("vgg16_bn", lambda: narrow_vgg("vgg16_bn"), 1 / 8, 224, 3),
        ("alexnet", torchvision.models.alexnet, 1.0, 224, 3),
        pytest.param("vgg16", torchvision.models.vgg16, 1.0, 224, 3, marks=pytest.mark.slow),
        pytest.param("vgg16_bn", torchvision.models.vgg16_bn, 1.0, 224, 3, marks=pytest.mark.slow),
    ],
)
def test_fc7_as_a_convolution_gives_torchvisions_classifier(
    name: str, published: Callable[[], nn.Module], width: float, side: int, center: int, tmp_path: Path
):
    theirs = randomize(published())
    ours = load(build_backbone(name, width=width), theirs, tmp_path)
    images = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        maps = ours(images)
        # The window of the middle cell is the whole image, as the classifier sees it.
        fc7 = theirs.classifier[:6](theirs.features(images).flatten(1))
        torch.testing.assert_close(maps[-1][:, :, center, center], fc7, rtol=1e-4, atol=1e-5)
        for tap, values in zip(ours.taps, maps, strict=False):
            assert torch.equal(values, theirs.features[: tap + 1](images))


@pytest.mark.parametrize("name", FCN_BACKBONES)
def test_published_weights_fit_without_the_classifier(name: str):
    with torch.device("meta"):
        published = torchvision.models.get_model(name)
        backbone = assemble_backbone(name)
    translated = backbone.translate(published.state_dict())
    assert {key: value.shape for key, value in translated.items()} == {
        key: value.shape for key, value in backbone.state_dict().items()
    }


def test_real_squeezenet_weights_give_torchvisions_features(shared_data: Path):
    path = shared_data / "weights" / "squeezenet1_1-imagenet.pth"
    published = torchvision.models.squeezenet1_1().eval()
    published.load_state_dict(torch.load(path, weights_only=True))
    backbone = build_backbone("squeezenet1_1").eval()
    assert load_backbone_weights(backbone, str(path)).startswith("b64f9cc6")
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(backbone(images)[-1], published.features(images))


@pytest.mark.parametrize("name", BACKBONES)
def test_strides_and_sizes_agree(name: str):
    backbone = build_backbone(name, width=1 / 4 if name == "squeezenet1_1" else 1 / 32).eval()
    side = 512 if name == "alexnet" else 256
    with torch.inference_mode():
        for values, stride in zip(backbone(torch.randn(1, 3, side, side)), backbone.strides, strict=True):
            assert abs(values.shape[-1] - side // stride) <= 1


def test_width_scales_every_channel():
    assert build_backbone("resnet18", width=0.25).channels == (16, 32, 64, 128)
    assert build_backbone("resnet50", width=0.5).channels == (128, 256, 512, 1024)
    assert build_backbone("vgg16", width=0.125).channels == (8, 16, 32, 64, 512)
    assert build_backbone("alexnet", width=0.5).channels == (96, 128, 2048)
    assert build_backbone("squeezenet1_1", width=0.5).channels == (64, 128, 256)
    assert build_backbone("sunet64", width=0.5).channels == (512,)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_stochastic_depth_drops_more_of_the_deeper_branches(name: str):
    net = build_backbone(name, width=1 / 16, stochastic_depth=0.4)
    blocks = [block for block in net.modules() if isinstance(block, ResidualBlock | BottleneckBlock)]
    rates = [block.stochastic_depth.p for block in blocks]
    assert rates == pytest.approx([0.4 * (index + 1) / len(blocks) for index in range(len(blocks))])
    plain = build_backbone(name, width=1 / 16)
    assert not any(isinstance(m, torchvision.ops.StochasticDepth) for m in plain.modules())
    assert plain.state_dict().keys() == net.state_dict().keys()


def test_a_dropped_branch_leaves_the_shortcut():
    torch.manual_seed(0)
    block = ResidualBlock(4, 4, 1, None, rate=0.5)
    x = torch.rand(256, 4, 3, 3)
    dropped = (block(x) == x).flatten(1).all(1)
    assert 90 < int(dropped.sum()) < 166
    kept = block.eval()(x[dropped]) == x[dropped]
    assert not kept.flatten(1).all(1).any()
