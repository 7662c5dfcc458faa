"""Pre-trained weights: every source that is read, and every file that is refused."""

import hashlib
import os
import pickle
import urllib.error
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from segstrat.config import TrialConfig
from segstrat.errors import UserError
from segstrat.models import assemble_backbone, build_backbone, build_model
from segstrat.models import weights as weights_module
from segstrat.models.weights import (
    check_backbone_weights,
    load_backbone_weights,
    load_pretrained,
    save_backbone,
)
from segstrat.tasks import Task

TASKS = {"semseg": Task("semseg", 5)}


def thin(seed: int = 0, width: float = 1 / 16):
    return build_backbone("resnet18", width=width, seed=seed)


def write(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


def equal(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def published(tmp_path: Path) -> tuple[torchvision.models.SqueezeNet, str]:
    """A torchvision SqueezeNet with random weights, and the file of its state dict."""
    torch.manual_seed(0)
    net = torchvision.models.squeezenet1_1(num_classes=10)
    return net, write(tmp_path / "squeezenet.pth", net.state_dict())


def test_our_format_goes_there_and_back(tmp_path: Path):
    path = tmp_path / "weights.pth"
    source, target = thin(seed=5), thin(seed=0)
    digest = save_backbone(path, source, {"top1": 0.5, "recipe": {"epochs": 3}})
    assert not equal(source, target)
    assert load_backbone_weights(target, str(path)) == digest
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert equal(source, target)


def test_a_models_heads_keep_their_start(tmp_path: Path):
    path = tmp_path / "weights.pth"
    save_backbone(path, thin(seed=5))
    config = TrialConfig(width=1 / 16, pretrained=True, weights=str(path))
    raw, pretrained = build_model(config, TASKS), build_model(config, TASKS)
    load_pretrained(pretrained, config)
    assert equal(raw.heads, pretrained.heads)
    assert equal(pretrained.backbone, thin(seed=5))


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "module", "safetensors"])
def test_torchvision_state_dicts_load_in_every_wrapping(published, tmp_path: Path, wrapped: str):
    net, _ = published
    state = net.state_dict()
    path = tmp_path / "w.pth"
    match wrapped:
        case "plain":
            write(path, state)
        case "state_dict":
            write(path, {"state_dict": state, "epoch": 3})
        case "module":
            write(path, {"state_dict": {f"module.{name}": value for name, value in state.items()}})
        case "safetensors":
            path = tmp_path / "w.safetensors"
            safetensors.torch.save_file(state, path)
    backbone = build_backbone("squeezenet1_1")
    load_backbone_weights(backbone, str(path))
    assert torch.equal(backbone.features[0].weight, net.features[0].weight)
    assert torch.equal(backbone.features[12].expand3x3.bias, net.features[12].expand3x3.bias)


def test_a_trials_checkpoint_gives_its_backbone_whatever_its_classes(tmp_path: Path):
    trained = build_model(TrialConfig(width=1 / 16, seed=5), {"parts": Task("parts", 7)})
    path = write(tmp_path / "checkpoint.pt", {"config": {}, "model": trained.state_dict(), "reports": []})
    config = TrialConfig(width=1 / 16, pretrained=True, weights=path)
    model = build_model(config, TASKS)
    load_pretrained(model, config)
    assert equal(model.backbone, trained.backbone)


def test_counters_of_old_checkpoints_may_be_missing(tmp_path: Path):
    state = {name: value for name, value in thin(seed=5).state_dict().items() if "num_batches" not in name}
    backbone = thin()
    load_backbone_weights(backbone, write(tmp_path / "old.pth", state))
    assert torch.equal(backbone.conv1.weight, state["conv1.weight"])


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("plain_pickle", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, plain_pickle: bool):
    path, target = tmp_path / "evil.pth", tmp_path / "was-run"
    content = {"state_dict": {}, "extra": Bomb(target)}
    if plain_pickle:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=r"evil\.pth are damaged or contain more than tensors"):
        load_backbone_weights(thin(), str(path))
    assert not target.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", ["empty", "noise", "cut"])
def test_a_damaged_file_is_refused(tmp_path: Path, suffix: str, damage: str):
    path = tmp_path / f"weights{suffix}"
    state = thin().state_dict()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    good = path.read_bytes()
    path.write_bytes({"empty": b"", "noise": b"\x17noise" * 50, "cut": good[: len(good) // 2]}[damage])
    with pytest.raises(UserError, match=f"weights{suffix} .*damaged") as raised:
        load_backbone_weights(thin(), str(path))
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere\.pth is not a file"):
        load_backbone_weights(thin(), str(tmp_path / "nowhere.pth"))
    with pytest.raises(UserError, match="is not a file"):
        load_backbone_weights(thin(), str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "contain a list, not a state dict"),
        ({}, "contain no state dict"),
        ({"epoch": 3}, "contain no state dict"),
        ({"state_dict": 3}, "contain no state dict"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: object, message: str):
    with pytest.raises(UserError, match=message):
        load_backbone_weights(thin(), write(tmp_path / "w.pth", content))


def test_wrong_names_and_shapes_are_listed_and_counted(tmp_path: Path):
    state = thin().state_dict()
    for block in (0, 1):
        for layer in (1, 2):
            state[f"layer1.{block}.convolution{layer}.weight"] = state.pop(
                f"layer1.{block}.conv{layer}.weight"
            )
    state["conv1.weight"] = torch.zeros(4, 3, 5, 5)
    backbone = thin(seed=1)
    before = backbone.conv1.weight.clone()
    with pytest.raises(UserError) as raised:
        load_backbone_weights(backbone, write(tmp_path / "w.pth", state))
    message = str(raised.value)
    assert "do not fit resnet18 at width 0.0625" in message
    assert "4 missing (layer1.0.conv1.weight, layer1.0.conv2.weight, layer1.1.conv1.weight, …)" in message
    assert "4 unknown (layer1.0.convolution1.weight" in message
    assert "1 with another shape (conv1.weight (4, 3, 5, 5) for (4, 3, 7, 7))" in message
    assert torch.equal(before, backbone.conv1.weight)


def test_another_network_or_width_is_named(tmp_path: Path):
    path = tmp_path / "w.pth"
    save_backbone(path, thin(width=1 / 8))
    with pytest.raises(UserError, match=r"those of width 0\.125, and the model has width 0\.0625"):
        load_backbone_weights(thin(), str(path))
    with pytest.raises(UserError, match="those of backbone resnet18, and the model has backbone resnet34"):
        load_backbone_weights(build_backbone("resnet34", width=1 / 8), str(path))


def test_a_state_dict_of_another_width_is_refused(published):
    with pytest.raises(UserError, match=r"do not fit squeezenet1_1 at width 0\.5: 50 with another shape"):
        load_backbone_weights(build_backbone("squeezenet1_1", width=0.5), published[1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float):
    state = thin(seed=5).state_dict()
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = value
    backbone = thin()
    with pytest.raises(UserError, match=r"NaN or infinite values in 1 tensors \(layer2\.0\.conv1\.weight\)"):
        load_backbone_weights(backbone, write(tmp_path / "w.pth", state))
    assert equal(backbone, thin())


def test_imagenet_weights_come_from_torch_hubs_cache(published, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(Path(published[1]).read_bytes())
    backbone = build_backbone("squeezenet1_1")
    assert load_backbone_weights(backbone, "imagenet") == hashlib.sha256(cached.read_bytes()).hexdigest()
    assert torch.equal(backbone.features[0].weight, published[0].features[0].weight)


def test_imagenet_weights_are_downloaded_into_that_cache(published, tmp_path: Path, monkeypatch):
    asked = []

    def download(url: str, path: str, hash_prefix: str) -> None:
        asked.append((url, hash_prefix))
        Path(path).write_bytes(Path(published[1]).read_bytes())

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    load_backbone_weights(build_backbone("squeezenet1_1"), "imagenet")
    url = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url
    assert asked == [(url, "b8a52dc0")]
    assert (tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth").is_file()


def test_offline_the_message_says_which_file_goes_where(tmp_path: Path, monkeypatch):
    def refuse(*_, **__) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(weights_module.torch.hub, "download_url_to_file", refuse)
    with pytest.raises(UserError) as raised:
        load_backbone_weights(build_backbone("resnet18"), "imagenet")
    message = str(raised.value)
    assert "imagenet weights of resnet18 cannot be downloaded" in message
    assert f"put resnet18-f37072fd.pth into {tmp_path / 'hub' / 'checkpoints'}" in message


def test_weights_are_checked_without_a_download_or_memory_for_the_network(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(weights_module.torch.hub, "download_url_to_file", None)
    with torch.device("meta"):
        backbone, half = assemble_backbone("squeezenet1_1"), assemble_backbone("squeezenet1_1", 0.5)
    check_backbone_weights(backbone, "imagenet", download=False)
    with pytest.raises(UserError, match=r"imagenet weights are those of width 1, not 0\.5"):
        check_backbone_weights(half, "imagenet", download=False)
    cached = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"not weights")
    with pytest.raises(UserError, match="damaged"):
        check_backbone_weights(backbone, "imagenet", download=False)
    save_backbone(tmp_path / "own.pth", build_backbone("squeezenet1_1"))
    check_backbone_weights(backbone, str(tmp_path / "own.pth"))


def test_imagenet_weights_that_do_not_exist_are_refused():
    with pytest.raises(UserError, match=r"imagenet weights are those of width 1, not 0\.5"):
        load_backbone_weights(build_backbone("resnet18", width=0.5), "imagenet")
    own = build_backbone("resnet18")
    own.name = "mine"
    with pytest.raises(
        UserError, match="torchvision has no imagenet weights of mine; give the path of a file"
    ):
        load_backbone_weights(own, "imagenet")
    with pytest.raises(UserError, match="torchvision has no weights of sunet64"):
        load_backbone_weights(build_backbone("sunet64", width=1 / 16), "imagenet")
