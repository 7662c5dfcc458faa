"""Questions to the nodes of a real cluster."""

import pytest

from segstrat.errors import UserError
from segstrat.store import Store
from study import probes
from study.lock import study_lock
from study.ray_runtime import living_nodes


def test_every_node_answers_for_itself(cluster):
    nodes = living_nodes()
    assert [node.gpus for node in nodes] == [4]
    assert probes.ask(nodes * 2, lambda number: number + 1, 31) == [32, 32]


def test_a_folder_that_a_node_does_not_see_is_refused(cluster, tmp_path):
    two = living_nodes() * 2  # the same node, asked twice
    study = Store(tmp_path / "study")
    with study_lock(study):
        probes.check_shared(study, two)
    with pytest.raises(UserError, match="give a folder that all nodes share"):
        probes.check_shared(study, two)
    probes.check_shared(study, two[:1])


def test_auto_asks_for_the_size_of_the_gpus(cluster, monkeypatch):
    monkeypatch.setattr(probes, "smallest_gpu_gib", lambda: 24.0)
    assert [node.gpu_memory_gib for node in probes.with_gpu_memory(living_nodes())] == [24.0]
