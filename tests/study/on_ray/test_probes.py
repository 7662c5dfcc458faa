"""Questions to the nodes of a real cluster."""

import dataclasses
import os
import signal

import pytest

from segstrat.config import TrialConfig
from segstrat.errors import UserError
from segstrat.step_cost import Footprint
from segstrat.store import Store
from segstrat.tasks import Task
from study.on_ray import probes
from study.on_ray.runtime import living_nodes
from study.planning.trials import PlannedTrial
from study.state.lock import study_lock


def test_every_node_answers_for_itself(cluster):
    nodes = living_nodes()
    assert [node.gpus for node in nodes] == [4]
    assert probes.ask(nodes * 2, lambda number: number + 1, 31) == [(nodes[0], 32)] * 2


def test_a_node_that_was_lost_is_left_out(cluster):
    (here,) = living_nodes()
    lost = dataclasses.replace(here, node_id="ab" * 28)
    assert probes.ask([lost, here], lambda: 1) == [(here, 1)]


def test_a_model_is_not_tried_on_a_lost_node(cluster):
    lost = dataclasses.replace(living_nodes()[0], node_id="ab" * 28)
    trial = PlannedTrial(trial_id="0", order=0, arm="raw", axes={}, config=TrialConfig())
    with pytest.raises(UserError, match="was lost while --gpus-per-trial auto"):
        probes.gpu_footprint([lost], [trial], {"semseg": Task("semseg", 9)}, "float32")


def test_a_living_node_that_cannot_answer_is_named(cluster, monkeypatch):
    monkeypatch.setattr(probes, "ANSWER_SECONDS", 0.0)
    nodes = living_nodes()
    with pytest.raises(UserError, match=f"node {nodes[0].address} does not answer within 0 s"):
        probes.ask(nodes, lambda: 1)


@pytest.mark.cluster
def test_a_process_that_dies_on_a_living_node_is_told(cluster):
    with pytest.raises(UserError, match=r"does not answer \(WorkerCrashedError\)"):
        probes.ask(living_nodes(), lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_no_nodes_give_no_answers(cluster):
    assert probes.ask([], lambda: 1) == []


@pytest.mark.cluster
def test_a_folder_that_a_node_does_not_see_is_refused(cluster, tmp_path):
    two = living_nodes() * 2  # the same node, asked twice
    study = Store(tmp_path / "study")
    with study_lock(study):
        probes.check_shared(study, two)
    with pytest.raises(UserError, match="give a folder that all nodes share"):
        probes.check_shared(study, two)
    probes.check_shared(study, two[:1])


def visible_gpus():
    """The GPUs that Ray lets a process see, of four that were declared to it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    return [int(index) for index in visible.split(",") if index]


@pytest.mark.cluster
@pytest.mark.parametrize("sizes", [(80.0, 80.0, 80.0, 24.0), (24.0, 80.0, 80.0, 80.0)])
def test_auto_goes_by_the_smallest_gpu_of_a_node_with_several_kinds(cluster, monkeypatch, sizes):
    monkeypatch.setattr(probes, "smallest_gpu_gib", lambda: min(sizes[index] for index in visible_gpus()))
    assert [node.gpu_memory_gib for node in probes.with_gpu_memory(living_nodes())] == [24.0]


@pytest.mark.cluster
def test_where_ray_hides_the_gpus_auto_asks_with_one_of_them(cluster, monkeypatch):
    monkeypatch.setattr(probes, "smallest_gpu_gib", lambda: 24.0 if len(visible_gpus()) == 1 else 0.0)
    assert [node.gpu_memory_gib for node in probes.with_gpu_memory(living_nodes())] == [24.0]


def test_auto_tries_each_model_once_on_a_gpu(cluster, monkeypatch):
    asked = []

    def measured(nodes, question, config, tasks, precision, *, gpu):
        asked.append((config.model, sorted(tasks), precision, gpu))
        return [(nodes[0], Footprint(memory_gib=4.0 if config.model == "fcn8s" else 6.0, busy=0.5))]

    monkeypatch.setattr(probes, "ask", measured)
    configs = [
        TrialConfig(model="fcn8s", crop_size=80, batch_size=4, weight_decay=0.0),
        TrialConfig(model="fcn8s", crop_size=80, batch_size=4, weight_decay=1e-3),
        TrialConfig(model="fcn32s", crop_size=512, batch_size=10),
    ]
    trials = [
        PlannedTrial(trial_id=str(order), order=order, arm="raw", axes={}, config=config)
        for order, config in enumerate(configs)
    ]
    footprint, lines = probes.gpu_footprint(living_nodes(), trials, {"semseg": Task("semseg", 9)}, "bfloat16")
    assert footprint == Footprint(memory_gib=6.0, busy=0.5)
    assert sorted(asked) == [(model, ["semseg"], "bfloat16", True) for model in ("fcn32s", "fcn8s")]
    assert any("fcn8s resnet18, batch 4 at 80 px: 4.0 GiB" in line for line in lines)


@pytest.mark.cluster
def test_a_gpu_that_torch_cannot_use_is_not_shared(cluster):
    # Four GPUs were declared to Ray that this machine does not have.
    config = TrialConfig(width=0.125, crop_size=32, batch_size=2)
    tasks = {"semseg": Task("semseg", 3)}
    ((_, found),) = probes.ask(living_nodes(), probes.footprint_here, config, tasks, "float32", gpu=True)
    assert found.busy == 1.0
    assert found.memory_gib == float("inf")


@pytest.mark.cluster
def test_gpus_that_torch_does_not_see_are_refused_before_anything_starts(cluster):
    (node,) = [node for node in living_nodes() if node.gpus][:1]
    with pytest.raises(
        UserError, match=rf"torch sees none of the {node.gpus} GPUs of node .*--gpus-per-trial 0"
    ):
        probes.possible_precisions([node], gpus=1)


@pytest.mark.gpu
def test_the_size_of_a_gpu_is_known():
    """Shows that torch names the memory of the GPUs that it sees."""
    assert probes.smallest_gpu_gib() > 1
