"""Pre-trained weights of a backbone: sources, checks, and their digest."""

import hashlib
import pickle
import urllib.error
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn
from torchvision.models import get_model_weights

from segstrat import atomic
from segstrat.config import TIMM_PREFIX, TrialConfig
from segstrat.data.loading.batch import IMAGENET, Standardization
from segstrat.errors import UserError
from segstrat.models.backbone import Backbone
from segstrat.models.segmenter import Segmenter
from segstrat.models.timm_backbone import published_tag, published_weights

FORMAT = "segstrat backbone"
SHOWN = 3  # names of wrong keys in an error message


def save_backbone(path: Path | str, backbone: Backbone, about: Mapping[str, Any] | None = None) -> str:
    """Writes a backbone's weights in the project's format, which `load_backbone_weights` reads.

    Args:
        path: file to write (`.pth`).
        backbone: its parameters, batch-norm statistics, name and width are stored.
        about: plain values to store with them, such as the recipe and its scores.

    Returns:
        SHA-256 of the file, hex.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "backbone": backbone.name,
        "width": backbone.width,
        "about": dict(about or {}),
        "state_dict": {name: value.detach().cpu() for name, value in backbone.state_dict().items()},
    }
    if backbone.standardization != IMAGENET:
        content["standardization"] = backbone.standardization.to_dict()
    torch.save(content, path)
    return _sha256(Path(path))


def read_about(path: Path | str) -> dict[str, Any]:
    """What `save_backbone` stored with the weights."""
    return dict(_read(Path(path)).get("about") or {})


def load_pretrained(model: Segmenter, config: TrialConfig) -> str:
    """Loads `config.weights` into the model's backbone; see `load_backbone_weights`."""
    if config.weights is None:
        raise UserError("pretrained: no weights are given; set `weights` to imagenet or to a file")
    return load_backbone_weights(model.backbone, config.weights)


def load_backbone_weights(backbone: Backbone, source: str) -> str:
    """Loads pre-trained weights into a backbone, all of them or none.

    Args:
        backbone: changed in place.
        source: `imagenet` (torchvision's IMAGENET1K_V1 or those of timm's tag, through torch hub's cache), or
            a file: weights that `save_backbone` wrote, a state dict in the names of torchvision or timm
            (`.pth`, `.safetensors`) whose classifier is left out, the SUNet authors' checkpoint, or a trial's
            checkpoint, whose heads are left out.

    Returns:
        SHA-256 of the file, hex.

    Raises:
        UserError: if the file is missing, cannot be read without running code, holds non-finite values, or
            does not fit the backbone.
    """
    path = _imagenet_file(backbone) if source == "imagenet" else Path(source).expanduser()
    backbone.load_state_dict(_checked_state(backbone, path), strict=False)
    return _sha256(path)


def check_backbone_weights(backbone: Backbone, source: str, *, download: bool = True) -> None:
    """Does all checks of `load_backbone_weights`, and loads nothing.

    Args:
        backbone: may be on the meta device.
        download: fetch `imagenet` weights that are not in torch hub's cache; else they are not looked into.

    Raises:
        UserError: as `load_backbone_weights`.
    """
    if source == "imagenet":
        path = _imagenet_place(backbone)
        if not (download or path.is_file()):
            return
        path = _imagenet_file(backbone)
    else:
        path = Path(source).expanduser()
    _checked_state(backbone, path)


def _checked_state(backbone: Backbone, path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, under the backbone's names."""
    content = _read(path)
    if content.get("format") == FORMAT:
        _check_origin(backbone, content, path)
    if content.get("format") == FORMAT or "standardization" in content:
        _check_standardization(backbone, content, path)
    state = backbone.translate(_state_dict(content, path))
    _check_fit(backbone, state, path)
    _check_finite(state, path)
    return state


def _imagenet_place(backbone: Backbone) -> Path:
    """The file of a backbone's imagenet weights in torch hub's cache."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if backbone.name.startswith(TIMM_PREFIX):
        return folder / f"timm-{published_tag(backbone.name)}.safetensors"
    return folder / _torchvision_url(backbone).rpartition("/")[2]


def _torchvision_url(backbone: Backbone) -> str:
    if backbone.name.startswith("sunet"):
        raise UserError(
            f"torchvision has no weights of {backbone.name}; give the path of its authors' checkpoint"
        )
    if backbone.width != 1:
        raise UserError(
            f"imagenet weights are those of width 1, not {backbone.width:g}; set width to 1 or pre-train it"
        )
    try:
        return get_model_weights(backbone.name).IMAGENET1K_V1.url
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"torchvision has no imagenet weights of {backbone.name}; give the path of a file that has some"
        ) from error


def _imagenet_file(backbone: Backbone) -> Path:
    path = _imagenet_place(backbone)
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if backbone.name.startswith(TIMM_PREFIX):
            _download_from_timm(backbone.name, path)
        else:
            # torchvision's file names end in the first digits of their hash.
            digits = path.stem.rpartition("-")[2]
            torch.hub.download_url_to_file(_torchvision_url(backbone), str(path), hash_prefix=digits)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"imagenet weights of {backbone.name} cannot be downloaded ({reason}); put {path.name} into "
            f"{path.parent}, give its path, or train weights with study/pretrain.py"
        ) from error
    return path


def _download_from_timm(name: str, path: Path) -> None:
    try:
        state = published_weights(name)
    except UserError:
        raise
    except Exception as error:  # the clients that timm's hub uses have no common class of errors
        raise OSError(str(error)) from error
    with atomic.replacing(path) as temporary:
        safetensors.torch.save_file(state, temporary)


def checksums_fit(path: Path) -> bool:
    """Whether the parts of a file of torch have the checksums that it names; true where it has none."""
    if not zipfile.is_zipfile(path):
        return True
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"weights {path} is not a file; give the path of a .pth or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            content = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
            if not checksums_fit(path):
                raise ValueError("a checksum differs")
    except pickle.UnpicklingError as error:
        raise UserError(
            f"weights {path} are damaged or contain more than tensors and plain values, which is not "
            "executed; save only a state dict"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, SafetensorError) as error:
        raise UserError(f"weights {path} cannot be read, the file is damaged; download it again") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UserError(f"weights {path} contain a {kind}, not a state dict; save `model.state_dict()`")
    return content


def _state_dict(content: Mapping[str, Any], path: Path) -> dict[str, torch.Tensor]:
    state = content.get("state_dict", content.get("model", content))
    tensors = isinstance(state, Mapping) and all(isinstance(each, torch.Tensor) for each in state.values())
    if not tensors or not state:
        raise UserError(
            f"weights {path} contain no state dict (names with tensors); save `model.state_dict()`"
        )
    # Names in models wrapped by DataParallel have this prefix.
    state = {str(name).removeprefix("module."): value for name, value in state.items()}
    inside = {name: value for name, value in state.items() if name.startswith("backbone.")}
    return {name.removeprefix("backbone."): value for name, value in inside.items()} or state


def _check_origin(backbone: Backbone, content: Mapping[str, Any], path: Path) -> None:
    for field, wanted in (("backbone", backbone.name), ("width", backbone.width)):
        if content[field] != wanted:
            raise UserError(
                f"weights {path} are those of {field} {content[field]}, and the model has {field} {wanted}; "
                "choose the same or other weights"
            )


def _check_standardization(backbone: Backbone, content: Mapping[str, Any], path: Path) -> None:
    given = content.get("standardization")
    trained = IMAGENET if given is None else Standardization.from_dict(given)
    if trained != backbone.standardization:
        raise UserError(
            f"weights {path} were trained on images with {trained}, and {backbone.name} has "
            f"{backbone.standardization}; choose the tag of timm that has the same, or other weights"
        )


def _check_fit(backbone: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    own = backbone.state_dict()
    # Old checkpoints lack these counters, which are not used where momentum is fixed.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in own]
    misfits = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    problems = [
        f"{len(names)} {kind} ({', '.join(names[:SHOWN])}{', …' if len(names) > SHOWN else ''})"
        for kind, names in (("missing", missing), ("unknown", unknown), ("with another shape", misfits))
        if names
    ]
    if problems:
        raise UserError(
            f"weights {path} do not fit {backbone.name} at width {backbone.width:g}: {'; '.join(problems)}"
        )


def _check_finite(state: Mapping[str, torch.Tensor], path: Path) -> None:
    broken = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise UserError(
            f"weights {path} contain NaN or infinite values in {len(broken)} tensors "
            f"({', '.join(broken[:SHOWN])}); use other weights"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
