"""The one precision in which all trials of a study compute."""

from collections.abc import Mapping, Sequence
from typing import Any

from segstrat.errors import UserError
from study.cli import AUTO
from study.planning.resources import Node


def asked_precision(flag: str, recorded: Mapping[str, Any]) -> str:
    """What `--precision` asks for: where a resumed study says `auto`, the precision that it was started with.

    `auto` is resolved once, so that a study does not change its precision with the machine. Torch computes in
    bfloat16 on every device.

    Args:
        recorded: the manifest of a study that is resumed; empty for a new one.
    """
    return str(recorded.get("precision") or AUTO) if flag == AUTO else flag


def study_precision(asked: str, nodes: Sequence[Node], *, gpus: float) -> str:
    """What `--precision` means on these nodes.

    Args:
        asked: see `asked_precision`.
        gpus: of each trial.

    Raises:
        UserError: if `auto` means another precision on one node than on another.
    """
    if asked != AUTO:
        return asked
    if len(nodes) == 1 and not gpus:
        # Usually this machine; asking Ray would take seconds.
        from study.on_ray.probes import precision_here

        return precision_here("cpu")
    from study.on_ray.probes import precisions

    return common_precision(precisions(nodes, gpus=gpus))


def common_precision(by_node: dict[str, str]) -> str:
    """The precision of all nodes.

    Raises:
        UserError: if there are several.
    """
    found = {precision: node for node, precision in by_node.items()}
    if len(found) > 1:
        nodes = " and ".join(f"{precision} on node {node}" for precision, node in sorted(found.items()))
        raise UserError(
            f"--precision auto means {nodes}, and a study does not mix precisions; pass --precision float32, "
            "or bfloat16"
        )
    return next(iter(found), "float32")
