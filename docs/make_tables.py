"""The tables of models in docs/models.md and of fields in docs/spaces.md.

`uv run python docs/make_tables.py` updates both.
"""

import ast
import dataclasses
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model_weights

from segstrat import config
from segstrat.config import BACKBONES, FCN_STRIDES, Limit, TrialConfig
from segstrat.models import assemble_backbone, make_head
from segstrat.models.sunet import STRIDE_CENTERS

CLASSES = 21
SIDE = 512
DOCS = Path(__file__).parent
AUTHORS_CHECKPOINTS = {
    "sunet64": "checkpoint_64_2441_residual.pth.tar",
    "sunet128": "checkpoint_128_2441_residual.pth.tar",
    "sunet7128": "checkpoint_128_2771_residual.pth.tar",
}


@dataclass(frozen=True)
class Row:
    """One model at width 1 with one head of 21 classes.

    Args:
        stride: input pixels per cell of the finest map that is scored.
        parameters: of backbone and head.
        multiply_adds: of the convolutions and matrix products for one 512×512 image.
        weights: where pre-trained weights of the backbone come from.
    """

    backbone: str
    model: str
    head: str
    stride: int
    parameters: int
    multiply_adds: int
    weights: str


def rows(backbones: Iterable[str] = BACKBONES) -> Iterator[Row]:
    """Every model and output stride of the given backbones."""
    for backbone in backbones:
        if backbone in AUTHORS_CHECKPOINTS:
            for stride in STRIDE_CENTERS:
                weights = AUTHORS_CHECKPOINTS[backbone]
                yield from _measure(backbone, [backbone], "de-gridding", weights, stride)
        else:
            weights = get_model_weights(backbone).IMAGENET1K_V1.url.rpartition("/")[2]
            yield from _measure(backbone, list(FCN_STRIDES), "FCN", weights)


def _measure(
    name: str, models: list[str], head_name: str, weights: str, output_stride: int | None = None
) -> Iterator[Row]:
    # On the meta device nothing is computed, only counted.
    with torch.device("meta"), torch.inference_mode():
        backbone = assemble_backbone(name, output_stride=output_stride).eval()
        with FlopCounterMode(display=False) as below:
            features = backbone(torch.empty(1, 3, SIDE, SIDE))
        for model in models:
            head = make_head(model, backbone, CLASSES).eval()
            with FlopCounterMode(display=False) as above:
                head(features, (SIDE, SIDE))
            yield Row(
                backbone=name,
                model=model,
                head=head_name,
                stride=output_stride or FCN_STRIDES[model],
                parameters=_parameters(backbone) + _parameters(head),
                multiply_adds=(below.get_total_flops() + above.get_total_flops()) // 2,
                weights=weights,
            )


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def model_table(backbones: Iterable[str] = BACKBONES) -> str:
    """The table of the given backbones, in Markdown."""
    lines = [
        "| backbone | model | head | output stride | parameters | multiply-adds | pre-trained weights |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    lines += [
        f"| {row.backbone} | {row.model} | {row.head} | {row.stride} | {row.parameters:,} "
        f"| {row.multiply_adds / 1e9:.1f} G | `{row.weights}` |"
        for row in rows(backbones)
    ]
    return "\n".join(lines)


def _descriptions() -> dict[str, str]:
    """The string below each field of `TrialConfig`, by field."""
    (found,) = [
        node
        for node in ast.parse(inspect.getsource(config)).body
        if isinstance(node, ast.ClassDef) and node.name == TrialConfig.__name__
    ]
    texts = {}
    for node, following in zip(found.body, found.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            assert isinstance(following, ast.Expr)
            assert isinstance(following.value, ast.Constant)
            texts[node.target.id] = str(following.value.value)
    return texts


def field_table() -> str:
    """The table of all fields of `TrialConfig`, in Markdown: default, allowed values, meaning."""
    texts = _descriptions()
    lines = ["| field | default | values | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(TrialConfig):
        limits = [part.expected for part in get_args(field.type) if isinstance(part, Limit)]
        lines.append(f"| `{field.name}` | `{field.default!r}` | {', '.join(limits)} | {texts[field.name]} |")
    return "\n".join(lines)


def updated(text: str, name: str, table: str) -> str:
    """`text` with a new table between the markers of that name.

    Raises:
        ValueError: if it lacks one of them; nothing of it is lost.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if not text.count(begin) == text.count(end) == 1:
        raise ValueError(f"expected one line {begin!r} and one {end!r} in the page")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"


if __name__ == "__main__":
    for page, name, table in (("models.md", "models", model_table()), ("spaces.md", "fields", field_table())):
        path = DOCS / page
        path.write_text(updated(path.read_text(encoding="utf-8"), name, table), encoding="utf-8")
