"""The backbone that docs/models.md adds as an example: its code, taken from there, works as it stands."""

import re
import types
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

import segstrat.models as models
from segstrat.config import BACKBONES
from segstrat.models import build_backbone, make_head
from segstrat.models.initialize import initialize
from segstrat.models.segmenter import Segmenter
from segstrat.models.weights import load_backbone_weights

DOCS = Path(__file__).parents[2] / "docs" / "models.md"
NAME = "mobilenet_v3_large"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's class in the two tables, as the steps after it say."""
    (source,) = re.findall(r'```python\n("""MobileNetV3.*?)```', DOCS.read_text(encoding="utf-8"), re.DOTALL)
    module = types.ModuleType("mobilenet")
    exec(source, module.__dict__)
    monkeypatch.setitem(BACKBONES, NAME, "mobilenet")
    monkeypatch.setitem(models.FAMILIES, "mobilenet", module.MobileNet)


def published_network() -> nn.Module:
    """torchvision's network with weights and statistics that are no identity."""
    network = torchvision.models.get_model(NAME)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith(("running_mean", "bias")):
                value.normal_(std=0.1, generator=generator)
    return network.eval()


def test_its_features_are_torchvisions(tmp_path):
    published = published_network()
    torch.save(published.state_dict(), tmp_path / "published.pth")
    backbone = build_backbone(NAME).eval()
    load_backbone_weights(backbone, str(tmp_path / "published.pth"))
    images = torch.randn(2, 3, 65, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        maps, x = backbone(images), images
        for index, layer in enumerate(published.features):
            x = layer(x)
            if index in backbone.taps:
                ours = maps.pop(0)
                assert torch.equal(ours, x)
                stride = backbone.strides[backbone.taps.index(index)]
                assert ours.shape[2:] == (-(-65 // stride), -(-96 // stride))
    assert maps == []


@pytest.mark.parametrize("head", ["fcn32s", "fcn16s", "fcn8s"])
def test_it_learns_in_an_fcn_at_another_width(head):
    backbone = build_backbone(NAME, width=0.25, seed=3)
    model = Segmenter(backbone, {"semseg": make_head(head, backbone, 3)})
    initialize(model, 3)
    images_BCHW = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    label_BHW = (images_BCHW[:, 0] > 0).long()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        logits = model(images_BCHW)["semseg"]
        assert logits.shape == (4, 3, 64, 64)
        loss = nn.functional.cross_entropy(logits, label_BHW)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-3:]) < 0.9 * losses[0], losses
