"""Table of all models: `uv run python -m segstrat.models.table FILE` updates the one in docs/models.md."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model_weights

from segstrat.architectures import BACKBONES, FCN_STRIDES
from segstrat.models import assemble_backbone, make_head
from segstrat.models.sunet import STRIDE_CENTERS

CLASSES = 21
SIDE = 512
BEGIN, END = "<!-- models: begin -->", "<!-- models: end -->"
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


def markdown(backbones: Iterable[str] = BACKBONES) -> str:
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


def update(text: str) -> str:
    """`text` with a new table between its markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{markdown()}\n{END}{after}"


def main() -> None:
    """Prints the table, or updates it in the file that is named."""
    if len(sys.argv) < 2:
        print(markdown())
        return
    path = Path(sys.argv[1])
    path.write_text(update(path.read_text()))


if __name__ == "__main__":
    main()
