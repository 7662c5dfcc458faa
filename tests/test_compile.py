"""`Machine.compile`: what is compiled, that it trains the same, and on CUDA that graphs are replayed."""

from collections.abc import Callable

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

from segstrat.config import TrialConfig
from segstrat.machine import Machine
from segstrat.models import build_model
from segstrat.objective import Objective
from segstrat.tasks import Task
from segstrat.train import train
from segstrat.training_state import compile_objective

# The compiler traces every layer: a network of few.
CONFIG = TrialConfig(
    data="figures", model="fcn32s", backbone="alexnet", width=0.125, crop_size=64, batch_size=3, epochs=2
)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def losses(reports) -> list[float]:
    return [score.loss for report in reports for score in report.scores]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> CompileCounter:
    """Counts what is compiled and runs it as it is: generating code takes minutes."""
    counter = CompileCounter()
    plain = torch.compile

    def count(function: Callable, *, dynamic: bool | None, options: dict | None) -> Callable:
        assert options is None, "only on CUDA"
        return plain(function, backend=counter, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", count)
    return counter


def test_steps_are_compiled_and_validation_is_not(tiny_protocol, compiled: CompileCounter):
    protocol = tiny_protocol(train=6, val=4)
    reports = list(train(CONFIG, machine=Machine(compile=True), protocol=protocol))
    assert compiled.frame_count == 1
    assert losses(reports) == losses(train(CONFIG, protocol=protocol))


def test_the_last_batch_of_an_epoch_is_compiled_for_itself(tiny_protocol, compiled: CompileCounter):
    list(train(CONFIG, machine=Machine(compile=True), protocol=tiny_protocol(train=8)))
    assert compiled.frame_count == 2


def test_images_that_are_labelled_for_some_tasks_train_the_same(tiny_protocol, compiled: CompileCounter):
    protocol = tiny_protocol(train=8, mixed=True)
    config = TrialConfig.from_dict(
        CONFIG.to_dict() | {"tasks": ["semseg", "parts"], "asynchronous": True, "epochs": 1}
    )
    reports = list(train(config, machine=Machine(compile=True), protocol=protocol))
    assert compiled.frame_count > 1
    assert losses(reports) == pytest.approx(losses(train(config, protocol=protocol)), rel=1e-4)


def test_every_trial_of_a_process_is_compiled(tiny_protocol, compiled: CompileCounter, monkeypatch):
    # Torch stops after eight compilations of one function, which four trials with a short last batch reach;
    # here two reach the limit.
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 4)
    protocol = tiny_protocol(train=8)
    frames = []
    for seed in range(3):
        before = compiled.frame_count
        config = TrialConfig.from_dict(CONFIG.to_dict() | {"seed": seed, "epochs": 1})
        list(train(config, machine=Machine(compile=True), protocol=protocol))
        frames.append(compiled.frame_count - before)
    assert frames == [2] * 3


@pytest.mark.parametrize(
    ("fields", "graphs"),
    [({}, True), ({"accumulation_steps": 2}, False), ({"asynchronous": True}, False)],
    ids=["plain", "accumulation", "asynchronous"],
)
def test_gradients_that_accumulate_stay_out_of_cuda_graphs(monkeypatch, fields: dict, graphs: bool):
    given = []
    monkeypatch.setattr(torch, "compile", lambda _, **options: given.append(options))
    config = TrialConfig.from_dict(CONFIG.to_dict() | fields)
    tasks = {"semseg": Task("semseg", 3)}
    objective = Objective(build_model(config, tasks), tasks, Machine(device="cuda", precision="float32"))
    compile_objective(objective, config, fully_labelled=True)
    assert [bool((options["options"] or {}).get("triton.cudagraphs")) for options in given] == [graphs]


def test_a_trial_compiles_on_its_own_cores(monkeypatch: pytest.MonkeyPatch):
    """By default torch starts a process per core of the machine, for each of the trials that share it."""
    from torch._inductor import config as inductor

    monkeypatch.setattr(inductor, "compile_threads", 64)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    tasks = {"semseg": Task("semseg", 3)}
    objective = Objective(build_model(CONFIG, tasks), tasks, Machine(threads=3))
    compile_objective(objective, CONFIG, fully_labelled=True)
    assert inductor.compile_threads == 3


@pytest.mark.slow
def test_compiled_code_trains_as_well(tiny_protocol):
    protocol = tiny_protocol(train=6)
    machines = Machine(compile=True), Machine()
    fast, plain = (losses(train(CONFIG, machine=machine, protocol=protocol)) for machine in machines)
    assert fast == pytest.approx(plain, rel=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "fields",
    [
        {"accumulation_steps": 2},
        {"asynchronous": True, "common_batch": 6, "head_batch": 3},
    ],
)
def test_accumulated_gradients_are_right_when_compiled(tiny_protocol, fields: dict):
    """Gradients in the memory of CUDA graphs would be overwritten by the next step."""
    config = TrialConfig.from_dict(CONFIG.to_dict() | fields)
    fast, plain = (
        losses(train(config, machine=Machine(device="cuda", compile=on), protocol=tiny_protocol(train=12)))
        for on in (True, False)
    )
    assert fast == pytest.approx(plain, rel=2e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["fcn32s", "sunet64"])
def test_graphs_are_replayed_and_train_as_well(tiny_protocol, model: str):
    protocol = tiny_protocol(train=8)
    config = TrialConfig.from_dict(CONFIG.to_dict() | {"model": model, "epochs": 4})
    fast, plain = (
        losses(train(config, machine=Machine(device="cuda", compile=on), protocol=protocol))
        for on in (True, False)
    )
    assert counters["inductor"]["cudagraph_skips"] == 0
    assert fast == pytest.approx(plain, rel=2e-2)
