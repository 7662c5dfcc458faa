"""How nodes are divided among trials, and requests that no node can meet."""

import pytest

from segstrat.errors import UserError
from segstrat.step_cost import Footprint
from study.planning.resources import Node, Share, share


def node(cpus: int, gpus: int = 0, memory: float = 0) -> Node:
    return Node(address="n", cpus=cpus, gpus=gpus, gpu_memory_gib=memory)


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([node(2)], {}, Share(cpus=1, gpus=0, concurrent=2)),
        ([node(2)], {"cpus_per_trial": 2}, Share(cpus=2, gpus=0, concurrent=1)),
        ([node(2)], {"max_concurrent": 1}, Share(cpus=1, gpus=0, concurrent=1)),
        ([node(16, 4)], {}, Share(cpus=4, gpus=1, concurrent=4)),
        ([node(64, 2)], {}, Share(cpus=8, gpus=1, concurrent=2)),  # more cores would only wait
        ([node(16, 4)], {"gpus_per_trial": 0.5}, Share(cpus=2, gpus=0.5, concurrent=8)),
        ([node(16, 4)], {"gpus_per_trial": 0.3}, Share(cpus=1, gpus=0.3, concurrent=12)),
        ([node(16, 4)], {"gpus_per_trial": 2.0}, Share(cpus=8, gpus=2, concurrent=2)),
        ([node(16, 4)], {"gpus_per_trial": 0.0}, Share(cpus=1, gpus=0, concurrent=16)),
        ([node(16, 4), node(8)], {}, Share(cpus=4, gpus=1, concurrent=4)),  # the CPU node cannot help
        ([node(16, 4), node(8, 1)], {"gpus_per_trial": 2.0}, Share(cpus=8, gpus=2, concurrent=2)),
        ([node(2, 4)], {}, Share(cpus=1, gpus=1, concurrent=2)),  # fewer cores than GPUs
        ([node(64, 2, 24)], {"gpus_per_trial": "auto"}, Share(cpus=8, gpus=1, concurrent=2)),  # unmeasured
        ([node(4)], {"gpus_per_trial": "auto"}, Share(cpus=1, gpus=0, concurrent=4)),
    ],
)
def test_share(nodes, asked, expected):
    assert share(nodes, **asked) == expected


@pytest.mark.parametrize(
    ("cpus", "memory", "footprint", "trials_per_gpu"),
    [
        (64, 80, Footprint(memory_gib=10, busy=0.3), 4),  # a fourth trial still finds the GPU idle at times
        (64, 24, Footprint(memory_gib=10, busy=0.3), 2),  # by memory
        (16, 80, Footprint(memory_gib=1, busy=0.1), 4),  # by cores, two each
        (64, 80, Footprint(memory_gib=1, busy=1.0), 1),  # one trial fills it
        (64, 24, Footprint(memory_gib=float("inf"), busy=1.0), 1),  # it could not be measured
    ],
)
def test_auto_packs_by_memory_cores_and_idle_time(cpus, memory, footprint, trials_per_gpu):
    found = share([node(cpus, 2, memory)], gpus_per_trial="auto", footprint=footprint)
    assert found.gpus == 1 / trials_per_gpu
    assert found.concurrent == 2 * trials_per_gpu
    assert found.cpus * found.concurrent <= cpus


@pytest.mark.parametrize(
    ("nodes", "asked", "words"),
    [
        ([node(16, 2)], {"gpus_per_trial": 3.0}, "the largest node has 2"),
        ([node(16, 2), node(16, 2)], {"gpus_per_trial": 4.0}, "does not span nodes"),
        ([node(16)], {"gpus_per_trial": 0.5}, "there is none here"),
        ([node(16)], {"cpus_per_trial": 17}, "the largest node has 16"),
        ([node(32), node(16, 2)], {"cpus_per_trial": 17}, "the largest node has 16"),
    ],
)
def test_what_no_node_can_hold_is_refused(nodes, asked, words):
    with pytest.raises(UserError, match=words):
        share(nodes, **asked)
