"""The update rules against hand-written loops over plain numbers."""

import copy
import math

import pytest
import torch
from torch import nn

from segstrat.config import TrialConfig
from segstrat.optim import (
    AsynchronousUpdate,
    SummedUpdate,
    cosine,
    make_parameter_groups,
    make_update,
    split_parameters,
    warmup,
)

LR, MOMENTUM, DECAY = 0.1, 0.9, 0.01


class TinyModel(nn.Module):
    """One scalar in the backbone and one in each head; the output is their product with the input."""

    def __init__(self, tasks: tuple[str, ...] = ("semseg", "parts")):
        super().__init__()
        self.backbone = nn.Linear(1, 1, bias=False)
        self.heads = nn.ModuleDict({task: nn.Linear(1, 1, bias=False) for task in tasks})
        for i, parameter in enumerate(self.parameters()):
            nn.init.constant_(parameter, 1.0 + 0.5 * i)

    def forward(self, x: torch.Tensor, task: str) -> torch.Tensor:
        return self.heads[task](self.backbone(x))


def config(**fields) -> TrialConfig:
    defaults = {"learning_rate": LR, "momentum": MOMENTUM, "weight_decay": DECAY, "epochs": 1}
    return TrialConfig(**(defaults | fields))


def hand_sgd(value: float, gradient: float, velocity: float | None, lr: float) -> tuple[float, float]:
    gradient = gradient + DECAY * value
    velocity = gradient if velocity is None else MOMENTUM * velocity + gradient
    return value - lr * velocity, velocity


def test_asynchronous_updates_equal_a_loop_over_scalars():
    # A stream of (task, input) images in batches of three: the counters fill at different moments.
    stream = (
        [("semseg", 0.3), ("parts", -0.7), ("semseg", 1.1)] * 2 + [("parts", 0.4)] * 3 + [("semseg", 0.9)] * 3
    )
    batches = [stream[i : i + 3] for i in range(0, len(stream), 3)]
    per_epoch = {"common": 12, "semseg": 7, "parts": 5}
    settings = config(asynchronous=True, common_batch=5, head_batch=2)
    model = TinyModel()
    update = AsynchronousUpdate(make_parameter_groups(model, settings, per_epoch))
    for batch in batches:
        loss = torch.zeros(())
        for task, x in batch:
            loss = loss + 0.5 * (model(torch.tensor([[x]]), task) - 1.0).pow(2).sum()
        loss.backward()
        counts = {task: sum(name == task for name, _ in batch) for task in ("semseg", "parts")}
        update.after_backward({"common": 3} | {task: n for task, n in counts.items() if n})

    value = {"common": 1.0, "semseg": 1.5, "parts": 2.0}
    gradient, velocity = dict.fromkeys(value, 0.0), dict.fromkeys(value)
    counter, seen, steps = dict.fromkeys(value, 0), dict.fromkeys(value, 0), dict.fromkeys(value, 0)
    full = {"common": 5, "semseg": 2, "parts": 2}
    for batch in batches:
        for task, x in batch:
            error = value["common"] * value[task] * x - 1.0
            gradient["common"] += error * value[task] * x
            gradient[task] += error * value["common"] * x
            for group in ("common", task):
                counter[group] += 1
        for group in value:
            if counter[group] >= full[group]:
                lr = LR * 0.5 * (1 + math.cos(math.pi * seen[group] / per_epoch[group]))
                value[group], velocity[group] = hand_sgd(
                    value[group], gradient[group] / counter[group], velocity[group], lr
                )
                seen[group] += counter[group]
                gradient[group], counter[group], steps[group] = 0.0, 0, steps[group] + 1

    assert {group.name: group.steps for group in update.groups} == steps
    assert model.backbone.weight.item() == pytest.approx(value["common"], abs=1e-6)
    for task, head in model.heads.items():
        assert head.weight.item() == pytest.approx(value[task], abs=1e-6)


def test_a_group_steps_only_when_its_counter_is_full_and_so_many_times_an_epoch():
    model = TinyModel()
    update = AsynchronousUpdate(
        make_parameter_groups(model, config(asynchronous=True), {"common": 80, "semseg": 50, "parts": 30})
    )
    steps = []
    for batch in range(8):
        task = "parts" if batch in (2, 4, 6) else "semseg"
        before = model.heads["parts"].weight.item()
        model(torch.ones(1, 1), task).sum().backward()
        assert (model.heads["parts"].weight.grad is None) == (task == "semseg")
        update.after_backward({"common": 10, task: 10})
        if task == "semseg":
            assert model.heads["parts"].weight.item() == before, "weight decay reached an unused head"
        steps.append({group.name: group.steps for group in update.groups})
    assert steps[0] == {"common": 0, "semseg": 1, "parts": 0}
    assert steps[-1] == {"common": 4, "semseg": 5, "parts": 3}


def test_pending_gradients_survive_a_checkpoint():
    def run(cut: bool) -> list[float]:
        model = TinyModel()
        counts = {"common": 6, "semseg": 6, "parts": 6}
        settings = config(asynchronous=True, common_batch=2, head_batch=2)
        update = AsynchronousUpdate(make_parameter_groups(model, settings, counts))
        for step in range(6):
            if cut and step == 3:
                weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(update.state_dict())
                model = TinyModel()
                model.load_state_dict(weights)
                update = AsynchronousUpdate(make_parameter_groups(model, settings, counts))
                update.load_state_dict(state)
            model(torch.full((1, 1), 0.1 * step), "semseg").sum().backward()
            update.after_backward({"common": 1, "semseg": 1})
        return [parameter.item() for parameter in model.parameters()]

    assert run(cut=True) == run(cut=False)


def test_a_summed_update_steps_every_group_at_the_cosine_of_the_step():
    model = TinyModel(("semseg",))
    update = SummedUpdate(make_parameter_groups(model, config(), {"common": 40, "semseg": 40}), total_steps=4)
    rates = []
    for _ in range(4):
        model(torch.ones(1, 1), "semseg").sum().backward()
        update.after_backward({"common": 10, "semseg": 10})
        rates.append(update.groups[0].optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([LR, LR * 0.8535533906, LR * 0.5, LR * 0.1464466094])
    assert [group.steps for group in update.groups] == [4, 4]


@pytest.mark.parametrize(("pretrained", "factor"), [(False, 1.0), (True, 0.1)])
def test_only_a_pre_trained_backbone_trains_at_a_tenth_of_the_rate(pretrained: bool, factor: float):
    settings = config(pretrained=pretrained, weights="imagenet" if pretrained else None)
    common, head = make_parameter_groups(TinyModel(("semseg",)), settings, {"common": 1, "semseg": 1})
    assert common.initial_lr == pytest.approx(LR * factor)
    assert head.initial_lr == LR


def test_a_parameter_outside_every_group_raises():
    model = TinyModel()
    model.stray = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=r"in none: \['stray'\]"):
        split_parameters(model)


def test_a_parameter_in_two_groups_raises():
    model = TinyModel()
    model.heads["parts"].weight = model.heads["semseg"].weight
    with pytest.raises(ValueError, match=r"in several groups: \['heads.semseg.weight'\]"):
        split_parameters(model)


@pytest.mark.parametrize(
    ("progress", "share"), [(0.0, 1.0), (1 / 3, 0.75), (0.5, 0.5), (2 / 3, 0.25), (1.0, 0.0), (2.0, 0.0)]
)
def test_cosine_has_the_closed_forms_values(progress: float, share: float):
    assert math.isclose(cosine(progress), share, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("progress", "share", "rate"), [(0.1, 0.0, 1.0), (0.1, 0.4, 0.25), (0.4, 0.4, 1.0), (0.9, 0.4, 1.0)]
)
def test_warmup_rises_linearly(progress: float, share: float, rate: float):
    assert warmup(progress, share) == pytest.approx(rate)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_warmup_multiplies_the_cosine(asynchronous: bool):
    settings = config(
        epochs=2,
        warmup_epochs=1.0,
        asynchronous=asynchronous,
        common_batch=10,
        head_batch=10,
        weight_decay=0.0,
    )
    model = TinyModel(("semseg",))
    groups = make_parameter_groups(model, settings, {"common": 20, "semseg": 20})
    update, rates = make_update(groups, settings, steps_per_epoch=2), []
    for _ in range(4):
        model(torch.ones(1, 1), "semseg").sum().backward()
        update.after_backward({"common": 10, "semseg": 10})
        rates.append(update.groups[0].optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([LR * 0.5, LR * 0.8535533906, LR * 0.5, LR * 0.1464466094])


def test_clipping_scales_the_gradient_of_all_groups_together():
    # Both gradients are products of input, and of the other weight: (1.5, 1.0), of norm 1.803.
    settings = config(clip_gradient=0.5, weight_decay=0.0)
    model = TinyModel(("semseg",))
    groups = make_parameter_groups(model, settings, {"common": 1, "semseg": 1})
    model(torch.ones(1, 1), "semseg").sum().backward()
    make_update(groups, settings, 1).after_backward({"common": 1, "semseg": 1})
    scale = 0.5 / math.hypot(1.5, 1.0)
    assert model.backbone.weight.item() == pytest.approx(1.0 - LR * scale * 1.5, abs=1e-6)
    assert model.heads["semseg"].weight.item() == pytest.approx(1.5 - LR * scale * 1.0, abs=1e-6)


def test_adamw_against_its_formula():
    settings = config(optimizer="adamw")
    model = TinyModel(("semseg",))
    groups = make_parameter_groups(model, settings, {"common": 1, "semseg": 1})
    update = SummedUpdate(groups, total_steps=3)
    value, first, second = 1.0, 0.0, 0.0
    for step in range(3):
        head = model.heads["semseg"].weight.item()
        model(torch.ones(1, 1), "semseg").sum().backward()
        update.after_backward({"common": 1, "semseg": 1})
        lr = LR * cosine(step / 3)
        first, second = MOMENTUM * first + (1 - MOMENTUM) * head, 0.999 * second + 0.001 * head**2
        value *= 1 - lr * DECAY
        corrected = first / (1 - MOMENTUM ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        value -= lr * corrected[0] / (math.sqrt(corrected[1]) + 1e-8)
        assert model.backbone.weight.item() == pytest.approx(value, abs=1e-5)
