"""`Numerics`: how a training run computes. The one place that names these settings; loads no torch."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from segstrat.errors import unknown_name

PrecisionOption = Literal["float32", "bfloat16", "auto"]


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """What changes a run's speed, and its results by rounding only.

    Args:
        precision: type of the matrix products; weights, losses and scores stay float32. `auto` takes the
            type that the device's hardware multiplies fastest. Torch's default on CUDA stands: float32
            convolutions are computed in TensorFloat-32, with 10 bits of mantissa.
        deterministic: deterministic CUDA algorithms, so that a resumed trial ends bit-identical.
        compile: run training steps through `torch.compile`, on CUDA as CUDA graphs. `auto` does so on CUDA
            where the trial is long enough to repay the start, has one process, and finds a C compiler.
        device_cache: keep the whole decoded training set on the device and augment there. `auto` does so on
            CUDA where it fits, unless `deterministic`: whether it fits may change between two runs.
    """

    precision: PrecisionOption = "auto"
    deterministic: bool = False
    compile: bool | Literal["auto"] = "auto"
    device_cache: bool | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.precision not in get_args(PrecisionOption):
            raise unknown_name("precision", self.precision, get_args(PrecisionOption))

    def numerics(self) -> dict[str, Any]:
        """These settings alone, as plain values; `Numerics(**values)` is the inverse."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Numerics)}
