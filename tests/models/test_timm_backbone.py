"""Networks of timm: where their cells lie, their images, their weights, and training them."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.func import functional_call

from segstrat.checkpoint import load_checkpoint
from segstrat.config import TrialConfig
from segstrat.data.loading.batch import IMAGENET, Batch, Standardization
from segstrat.errors import UserError
from segstrat.machine import Machine
from segstrat.models import assemble_backbone, build_backbone, build_model, timm_backbone
from segstrat.models.segmenter import Segmenter
from segstrat.models.timm_backbone import TimmBackbone
from segstrat.models.weights import check_backbone_weights, load_backbone_weights, save_backbone
from segstrat.objective import Objective
from segstrat.predict import TrainedTrial, load_trial, predict
from segstrat.pretraining.loop import build_classifier, run_key, to_the_end
from segstrat.pretraining.recipe import Recipe, recipe_for
from segstrat.store import Store
from segstrat.tasks import Task
from segstrat.train import train

timm = pytest.importorskip("timm", reason="timm is not installed (uv sync --extra timm)")

SEMSEG = {"semseg": Task("semseg", 3)}
HALF = Standardization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
LITE = "tf_efficientnet_lite0"
# A small member of each family: its model, and the pixels on which the first cells of the maps are centered.
FAMILIES = {
    "mobilenetv4_conv_small_035": ("fcn8s", (0, 0, 0, 0, 0)),
    "test_convnext": ("fcn8s", (1.5, 3.5, 7.5, 15.5)),
    "convnextv2_atto": ("fcn8s", (1.5, 3.5, 7.5, 15.5)),
    LITE: ("fcn8s", (1, 3, 7, 15, 31)),
    "hgnetv2_b0": ("fcn8s", (1.5, 1.5, 1.5, 1.5)),
    "regnetx_002": ("fcn16s", (0, 0, 0, 0, 0)),
    "edgenext_xx_small": ("fcn8s", (1.5, 3.5, 7.5, 15.5)),
    "test_vit": ("fcn16s", (7.5,)),
    "resnet18": ("fcn32s", (0, 0, 0, 0, 0)),
}
LARGER = {
    "resnetv2_18": ("fcn8s", (0, 0, 0, 0, 0)),
    "swin_tiny_patch4_window7_224": ("fcn8s", (1.5, 3.5, 7.5, 15.5)),
    "vit_tiny_patch16_224": ("fcn16s", (7.5,)),
    "vit_small_patch14_dinov2": ("fcn16s", (6.5,)),
    "fastvit_t8": ("fcn8s", (0, 0, 0, 0)),
    "densenet121": ("fcn8s", (0, 0, 2, 6, 14)),
}
ALL = [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGER)]


def config(name: str, **fields) -> TrialConfig:
    model, _ = (FAMILIES | LARGER).get(name.partition(".")[0], ("fcn32s", ()))
    small = {"data": "tiny", "crop_size": 32, "batch_size": 4, "epochs": 2}
    return TrialConfig(**{"model": model, "backbone": f"timm/{name}"} | small | fields)


def reference(name: str, **options) -> nn.Module:
    """The extractor that timm itself builds."""
    fixed = {"dynamic_img_size": True} if timm.get_pretrained_cfg(name).fixed_input_size else {}
    return timm.create_model(name, features_only=True, **fixed, **options).eval()


def published(name: str, seed: int = 0) -> nn.Module:
    """The whole network, with weights and statistics that are no identity."""
    network = timm.create_model(name)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if key.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=generator), alpha=0.02)
    return network.eval()


def test_other_networks_load_no_timm():
    code = (
        "import sys; from segstrat.config import TrialConfig; from segstrat.models import build_model\n"
        "from segstrat.tasks import Task; import segstrat.train, segstrat.predict\n"
        "from segstrat.pretraining.loop import build_classifier\n"
        "from segstrat.pretraining.recipe import recipe_for\n"
        "build_model(TrialConfig(model='fcn8s', width=1 / 16), {'semseg': Task('semseg', 2)})\n"
        "build_classifier('resnet18', 1 / 16, 3, recipe_for('resnet18', 'figures'))\n"
        "sys.exit('timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_without_timm_the_message_says_how_to_get_it(monkeypatch):
    timm_backbone._import_timm.cache_clear()
    monkeypatch.setattr(timm_backbone.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="need the package timm; install it with `uv sync --extra timm`"):
        build_backbone(f"timm/{LITE}")


@pytest.mark.parametrize("name", ALL)
def test_positions_and_strides_are_those_of_the_network(name: str):
    with torch.device("meta"):
        backbone = assemble_backbone(f"timm/{name}")
    assert all(parameter.is_meta for parameter in backbone.parameters())
    info = reference(name).feature_info
    wanted = dict(zip(info.reduction(), info.channels(), strict=True))
    assert dict(zip(backbone.strides, backbone.channels, strict=True)) == wanted
    assert backbone.centers == (FAMILIES | LARGER)[name][1]
    assert backbone.multiple == backbone.strides[-1] <= 32


@pytest.mark.parametrize("name", ALL)
def test_an_object_is_seen_where_it_is_at_an_odd_size(name: str):
    """The logits of a whole period of pixels look, on average, at these pixels."""
    model = build_model(config(name), SEMSEG).eval()
    weights = {
        f"backbone.network.{key}": value
        for key, value in timm_backbone._symmetric_weights(model.backbone.network, seed=7).items()
    }
    for key, value in model.named_parameters():
        if ".score." in key:
            weights[key] = torch.full_like(value, 0.0 if key.endswith("bias") else 1.0)
    images = torch.full((1, 3, 229, 243), 1e-15, requires_grad=True)
    with timm_backbone._Geometry():
        logits = functional_call(model, weights, (images,))["semseg"]
    assert logits.shape == (1, 3, 229, 243)
    period = model.backbone.strides[-1]
    start = 112 - period // 2
    logits[0, 0, start : start + period, start : start + period].sum().backward()
    seen_HW = images.grad[0].sum(0)
    for axis in (0, 1):
        line = seen_HW.sum(1 - axis).double()
        line -= line.median()
        found = float((line * torch.arange(len(line))).sum() / line.sum())
        # Half a pixel of the network's branches and half a pixel of the head's kernels.
        assert abs(found - (start + (period - 1) / 2)) <= 1.0


@pytest.mark.parametrize("name", ["resnet18d", "resnest14d", "test_byobnet"])
def test_networks_whose_branches_see_different_places_are_refused(name: str):
    with pytest.raises(UserError, match=rf"timm/{name} cannot be aligned with the image: the first cell at"):
        build_backbone(f"timm/{name}")


@pytest.mark.parametrize("name", ALL)
def test_initial_values_and_buffers_are_those_of_timms_constructor(name: str):
    backbone = build_backbone(f"timm/{name}", seed=3)
    torch.manual_seed(99)
    whole = build_model(config(name, seed=3), SEMSEG | {"parts": Task("parts", 4)}).backbone
    own, again = (dict(net.named_parameters()) | dict(net.named_buffers()) for net in (backbone, whole))
    assert own.keys() == again.keys()
    assert all(torch.equal(own[key], again[key]) for key in own)
    theirs = dict(reference(name).named_buffers())
    buffers = {key.removeprefix("network."): value for key, value in backbone.named_buffers()}
    assert theirs.keys() == buffers.keys()
    assert all(torch.equal(theirs[key], buffers[key]) for key in theirs)
    other = dict(build_backbone(f"timm/{name}", seed=4).named_parameters())
    weights = [key for key, value in own.items() if key.endswith("weight") and value.ndim > 1 and value.any()]
    assert weights
    assert not any(torch.equal(own[key], other[key]) for key in weights)


def test_paired_arms_share_what_they_should(tmp_path: Path):
    safetensors.torch.save_file(published(LITE).state_dict(), tmp_path / "w.safetensors")
    given = {"pretrained": True, "weights": str(tmp_path / "w.safetensors"), "seed": 5}
    raw, pretrained = build_model(config(LITE, seed=5), SEMSEG), build_model(config(LITE, **given), SEMSEG)
    assert all(torch.equal(a, b) for a, b in zip(raw.parameters(), pretrained.parameters(), strict=True))
    load_backbone_weights(pretrained.backbone, given["weights"])
    for key, value in raw.heads.state_dict().items():
        assert torch.equal(value, pretrained.heads.state_dict()[key])
    assert raw.backbone.standardization == pretrained.backbone.standardization == HALF


@pytest.mark.parametrize("name", ALL)
def test_it_trains_resumes_bit_identical_and_is_scored_on_odd_sizes(name: str, tiny_protocol, tmp_path: Path):
    if name == "fastvit_t8":
        pytest.skip("torch 2.15.0 corrupts memory in its backward pass on a CPU, in channels-last order")
    protocol = tiny_protocol(train=4, val=2, test=0)
    protocol.val.samples[1] = _cropped(protocol.val.samples[1], 41, 37)
    trial = config(name, stochastic_depth=0.1 if name == LITE else 0.0)
    whole = list(train(trial, protocol=protocol, store=Store(tmp_path / "whole")))
    halves = Store(tmp_path / "halves")
    generator = train(trial, protocol=protocol, store=halves)
    next(generator)
    generator.close()
    assert len(list(train(trial, protocol=protocol, store=halves))) == 1
    a, b = load_checkpoint(Store(tmp_path / "whole")), load_checkpoint(halves)
    assert all(torch.equal(value, b["model"][key]) for key, value in a["model"].items())
    assert whole[-1].status == "completed"
    assert math.isfinite(whole[-1].value("semseg", "val", "miou"))
    start = build_model(trial, SEMSEG).state_dict()
    moved = [key for key, value in a["model"].items() if not torch.equal(value, start[key])]
    assert any(key.startswith("backbone.") for key in moved)


def _cropped(sample, height: int, width: int):
    labels = {task: values[:height, :width] for task, values in sample.labels.items()}
    return type(sample)(sample.id, np.ascontiguousarray(sample.image[:height, :width]), labels)


@pytest.mark.parametrize("name", [*ALL, "test_convnext2", "regnety_002", "test_efficientnet"])
def test_published_weights_fit_under_timms_names(name: str):
    with torch.device("meta"):
        whole, backbone = timm.create_model(name), assemble_backbone(f"timm/{name}")
    translated = backbone.translate(whole.state_dict())
    assert {key: value.shape for key, value in translated.items()} == {
        key: value.shape for key, value in backbone.state_dict().items()
    }
    # Its own names, as in a trial's checkpoint, stay.
    assert backbone.translate(translated).keys() == translated.keys()


@pytest.mark.parametrize(
    ("name", "suffix"), [(LITE, "safetensors"), ("test_convnext", "pth"), ("test_vit", "pth")]
)
def test_weights_from_a_file_give_timms_features(name: str, suffix: str, tmp_path: Path):
    network = published(name)
    path = tmp_path / f"w.{suffix}"
    (safetensors.torch.save_file if suffix == "safetensors" else torch.save)(network.state_dict(), path)
    backbone = build_backbone(f"timm/{name}").eval()
    load_backbone_weights(backbone, str(path))
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        coarse = network.forward_intermediates(images, indices=1, intermediates_only=True)[-1]
        torch.testing.assert_close(backbone(images)[-1], coarse, rtol=1e-5, atol=1e-5)


def test_foreign_and_missing_names_are_refused(tmp_path: Path):
    state = published(LITE).state_dict()
    state["blocks.9.conv.weight"] = state.pop("blocks.0.0.conv_dw.weight")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(
        UserError, match=r"1 missing \(network.blocks.0.0.conv_dw.weight\); 1 unknown \(blocks.9"
    ):
        load_backbone_weights(build_backbone(f"timm/{LITE}"), str(tmp_path / "w.pth"))


def test_real_imagenet_weights_give_timms_features(shared_data: Path):
    path = shared_data / "weights" / "tf_efficientnet_lite0-imagenet.safetensors"
    network = timm.create_model(LITE).eval()
    network.load_state_dict(safetensors.torch.load_file(path))
    backbone = build_backbone(f"timm/{LITE}").eval()
    assert load_backbone_weights(backbone, str(path)).startswith("30f512ff")
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        whole = network.forward_intermediates(images, indices=1, intermediates_only=True)[-1]
        assert torch.equal(backbone(images)[-1], whole)


def test_mean_and_deviation_are_those_of_the_tag():
    with torch.device("meta"):
        tags = ("e2400_r224_in1k", "e3600_r256_in1k")
        first, second = (assemble_backbone(f"timm/mobilenetv4_conv_small.{tag}") for tag in tags)
        assert assemble_backbone(f"timm/{LITE}").standardization == HALF
    assert (first.standardization, second.standardization) == (IMAGENET, HALF)


def white(backbone: TimmBackbone) -> list[torch.Tensor]:
    """What the backbone is given from now on."""
    seen: list[torch.Tensor] = []
    backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    return seen


def test_they_are_used_in_training_validation_prediction_and_pretraining():
    model = build_model(config(LITE), SEMSEG)
    seen = white(model.backbone)
    objective = Objective(model, SEMSEG, Machine())
    images = torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)
    batch = Batch(
        images, {"semseg": torch.zeros(2, 32, 32, dtype=torch.uint8)}, {"semseg": [0, 1]}, ["a", "b"]
    )
    objective(batch)
    model.eval()
    objective(batch)
    trial = TrainedTrial(config(LITE), SEMSEG, model, torch.device("cpu"), "checkpoint-000001.pt")
    predict(trial, np.full((64, 32, 3), 255, np.uint8))
    recipe = Recipe(
        epochs=1, batch_size=2, learning_rate=0.1, warmup_epochs=0, crop_size=48, resize=48, smallest_crop=1.0
    )
    classifier = build_classifier(f"timm/{LITE}", 1.0, 3, recipe)
    seen_there = white(classifier.backbone)

    class WhiteImages:
        labels = np.zeros(2, np.int64)

        def __len__(self) -> int:
            return 2

        def read(self, _: int) -> np.ndarray:
            return np.full((48, 48, 3), 255, np.uint8)

    to_the_end(classifier.evaluate(WhiteImages(), recipe, Machine()))
    assert len(seen) == 3
    assert len(seen_there) == 1
    for values in (*seen, seen_there[0][:, :, :48, :48]):
        torch.testing.assert_close(values, torch.ones_like(values))
    # Padded to whole cells with the mean color.
    assert seen_there[0].shape == (2, 3, 64, 64)
    assert not seen_there[0][:, :, 48:].any()


def test_a_checkpoint_keeps_them_when_timm_changes_its_mind(tiny_protocol, tmp_path: Path, monkeypatch):
    trial = config(LITE, epochs=2)
    protocol = tiny_protocol(train=2, val=1)
    generator = train(trial, protocol=protocol, store=Store(tmp_path))
    next(generator)
    generator.close()
    monkeypatch.setattr(timm_backbone, "_standardization", lambda _: IMAGENET)
    assert load_trial(tmp_path).model.backbone.standardization == HALF
    assert len(list(train(trial, protocol=protocol, store=Store(tmp_path)))) == 1
    assert load_checkpoint(Store(tmp_path))["standardization"] == HALF.to_dict()
    assert load_checkpoint(Store(tmp_path))["facts"]["standardization"] == HALF.to_dict()


def test_weights_of_other_images_are_refused(tmp_path: Path, monkeypatch):
    save_backbone(tmp_path / "w.pth", build_backbone(f"timm/{LITE}", seed=1))
    backbone = build_backbone(f"timm/{LITE}")
    load_backbone_weights(backbone, str(tmp_path / "w.pth"))
    backbone.standardization = IMAGENET
    with pytest.raises(
        UserError, match=r"were trained on images with Standardization\(mean=\(0.5, 0.5, 0.5\)"
    ):
        load_backbone_weights(backbone, str(tmp_path / "w.pth"))


def test_imagenet_weights_come_through_timms_hub_and_stay(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    network, asked, create = published("test_vit"), [], timm.create_model

    def create_model(name: str, pretrained: bool = False, **options):
        if pretrained:
            asked.append(name)
        return network if pretrained else create(name, **options)

    monkeypatch.setattr(timm, "create_model", create_model)
    for _ in range(2):
        backbone = build_backbone("timm/test_vit")
        load_backbone_weights(backbone, "imagenet")
        assert torch.equal(backbone.network.model.pos_embed, network.pos_embed)
    assert asked == ["test_vit"]
    assert (tmp_path / "checkpoints" / "timm-test_vit.r160_in1k.safetensors").is_file()


def test_offline_the_message_says_which_file_goes_where(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    create = timm.create_model

    class HubError(Exception):
        """The hub's client has errors of its own."""

    def offline(name: str, pretrained: bool = False, **options):
        if pretrained:
            raise HubError("no route to host")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    backbone = build_backbone("timm/test_vit")
    with pytest.raises(UserError) as raised:
        check_backbone_weights(backbone, "imagenet")
    assert str(raised.value) == (
        "imagenet weights of timm/test_vit cannot be downloaded (no route to host); put "
        f"timm-test_vit.r160_in1k.safetensors into {tmp_path / 'checkpoints'}, give its path, or train "
        "weights with study/pretrain.py"
    )
    check_backbone_weights(backbone, "imagenet", download=False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbone": "timm/resnet81"}, r"has no network 'resnet81': did you mean resnet18"),
        ({"backbone": "timm/resnet18.mine"}, r"resnet18 has no tag 'mine' in timm; it has a1_in1k, "),
        ({"backbone": f"timm/{LITE}", "width": 0.5}, r"width=0.5: timm/tf_efficientnet_lite0 has the width"),
        ({"backbone": "timm/regnetx_002", "output_stride": 8}, r"output_stride=8: fcn8s has a fixed one"),
        (
            {"backbone": "timm/test_vit"},
            r"one map, of stride 16, and fcn8s cannot use it; choose the model fcn16s",
        ),
        ({"backbone": "timm/test_vit", "model": "fcn32s"}, r"choose the model fcn16s"),
        ({"backbone": "timm/vgg11", "stochastic_depth": 0.1}, r"stochastic_depth=0.1: timm/vgg11 has none"),
        ({"backbone": "timm/test_convnext", "freeze_batch_norm": True}, r"has no batch normalization"),
        ({"backbone": "tim/resnet18"}, r"unknown backbone 'tim/resnet18'.*timm/<name>"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(fields: dict, message: str):
    with pytest.raises(UserError, match=message):
        build_model(TrialConfig(**{"model": "fcn8s"} | fields), SEMSEG)


def test_weights_of_other_images_than_imagenet_are_not_called_imagenet():
    with pytest.raises(UserError, match=r"have the tag 'fcmae', which does not say ImageNet"):
        timm_backbone.published_tag("timm/convnextv2_atto.fcmae")
    assert timm_backbone.published_tag("timm/convnextv2_atto") == "convnextv2_atto.fcmae_ft_in1k"


def test_stochastic_depth_and_frozen_norms_reach_the_network():
    model = build_model(config(LITE, stochastic_depth=0.2, freeze_batch_norm=True), SEMSEG)
    rates = [module.drop_prob for module in model.modules() if type(module).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.2, abs=0.02)
    model.train()
    norms = list(model.backbone.batch_norms())
    assert len(norms) > 20
    assert not any(norm.training for norm in norms)


def test_pretraining_knows_its_networks():
    assert recipe_for("timm/regnetx_002", "figures").learning_rate == 0.1
    assert recipe_for("timm/test_convnext", "figures").learning_rate == pytest.approx(0.01)
    recipe = recipe_for(f"timm/{LITE}", "figures")
    model = build_classifier(f"timm/{LITE}", 1.0, 3, recipe)

    class Data:
        digest, classes = "d", ("a", "b", "c")

    before = run_key(model, Data, recipe)
    model.backbone.standardization = IMAGENET
    assert run_key(model, Data, recipe) != before
    assert isinstance(Segmenter(model.backbone, {}).backbone, TimmBackbone)
