"""Every space in search_spaces/ can be planned, and each of its trials can be built."""

import pytest

from segstrat.errors import UserError
from segstrat.models import assemble_model
from segstrat.tasks import Task
from study.planning.space import STARTUP_POINTS, load_space, rehearsal_overrides, space_names
from study.planning.trials import plan

TASKS = {"semseg": Task("semseg", 21), "parts": Task("parts", 7), "boundaries": Task("boundaries", 2)}
SIZES = {
    "backbones": 6,
    "batch_size": 24,
    "dropout_wd": 36,
    "equal_budget": 6,
    "label_fraction": 24,
    "loss_imbalance": 16,
    "multitask": 6,
    "optuna_wd_dropout": 48,
    "photos_budget": 4,
    "photos_imagenet": 5,
    "photos_labels": 16,
    "photos_multitask": 4,
    "photos_overfit": 6,
    "photos_rates": 10,
    "photos_regularizers": 9,
    "photos_self": 5,
    "photos_squeezenet": 24,
    "photos_wd": 12,
    "regularizers": 32,
    "sobol_wd_dropout": 32,
    "self_figures": 9,
    "wd_grid": 12,
    "wd_lr_grid": 18,
    "wd_squeezenet": 6,
}


def test_every_space_is_listed_here():
    assert space_names() == sorted(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_a_space_states_its_question_command_and_cost(name):
    space = load_space(name)
    assert space.size == SIZES[name]
    assert space.question.endswith("?")
    assert f"--space {name}" in space.doc
    assert f"{SIZES[name]} per seed" in space.doc or "Trials: 2 arms" in space.doc
    assert "Cost:" in space.doc
    assert "arm" in (space.roles.get("pretrained"), space.roles.get("initialization"))


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("data", ["figures", "d3"])
def test_its_models_can_be_built(name, data):
    import torch

    if name in ("photos_imagenet", "photos_regularizers", "photos_self"):
        pytest.importorskip("timm", reason="timm is not installed (uv sync --extra timm)")
    trials = plan(load_space(name), data, seeds=(0,), weights="imagenet")
    startup = 2 * STARTUP_POINTS if name == "optuna_wd_dropout" else SIZES[name]
    assert len(trials) == startup, "Optuna proposes the rest while the study runs"
    built = set()
    for trial in trials:
        config = trial.config
        key = (config.model, config.backbone, config.tasks, config.dropout > 0, config.stochastic_depth > 0)
        if key in built:
            continue
        built.add(key)
        with torch.device("meta"):
            model = assemble_model(config, {task: TASKS[task] for task in config.tasks})
        assert set(model.heads) == set(config.tasks)


def test_multi_task_training_is_asynchronous_where_images_have_one_label():
    trials = plan(load_space("multitask"), "d1+d2", seeds=(0,), weights="imagenet")
    assert all(trial.config.asynchronous == trial.config.multi_task for trial in trials)
    assert not any(
        trial.config.asynchronous for trial in plan(load_space("multitask"), "d3", weights="imagenet")
    )


def test_sampled_points_are_the_same_in_both_arms():
    trials = plan(load_space("sobol_wd_dropout"), "figures", weights="w.pt")
    points = {
        arm: {(trial.axes["weight_decay"], trial.axes["dropout"]) for trial in trials if trial.arm == arm}
        for arm in ("raw", "pre-trained")
    }
    assert points["raw"] == points["pre-trained"]
    assert len(points["raw"]) == 16


SPACE_FILE = """'Does it run?'
from ray import tune

QUESTION = "Does it run?"
BASE = {"model": "fcn8s", "backbone": "resnet18"}
SPACE = {"weight_decay": tune.grid_search([0.0])}
ROLES = {"weight_decay": "treatment"}
METRIC = "semseg_val_miou"
"""
DRAWN = 'SPACE = {"weight_decay": tune.loguniform(1e-5, 1e-2)}\n'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("SEEDS = (0)", r"SEEDS is 0; expected whole numbers ≥ 0 in parentheses, such as \(0,\)"),
        ("CLAIMS = 1", "CLAIMS is 1; expected True or False"),
        ("SEEDS = 3", r"SEEDS is 3; .*such as \(3,\)"),
        ("SEEDS = ()", r"SEEDS is \(\)"),
        ('SEEDS = ("0",)', "SEEDS is"),
        ("SEEDS = (-1, 0)", "SEEDS is"),
        (f"{DRAWN}SAMPLES = '16'", "SAMPLES is '16'; expected a whole number ≥ 1"),
        (f"{DRAWN}SAMPLES = 0", "SAMPLES is 0; expected a whole number ≥ 1"),
        ("recipe = {'epochs': 3}", "expected a function of"),
        ("def recipe(data, model, *, pretrained):\n    pass", "recipe returned None; it must return a dict"),
        (
            'SPACE = {"weight_decay": tune.choice([0.0, 0.1])}\nSAMPLES = 2',
            r"tune\.grid_search\(\[0\.0, 0\.1\]\)",
        ),
        (
            'SPACE = {"weight_decay": tune.loguniform(1e-2, 1e-5)}\nSAMPLES = 2',
            "give the smaller bound first",
        ),
        (
            'SPACE = {"batch_size": tune.randint(8, 2)}\nROLES = {"batch_size": "nuisance"}\nSAMPLES = 2',
            "smaller bound",
        ),
    ],
)
def test_parts_of_another_type_are_one_sentence(tmp_path, lines, message):
    path = tmp_path / "mine.py"
    path.write_text(f"{SPACE_FILE}{lines}\n")
    with pytest.raises(UserError, match=message) as raised:
        plan(load_space(str(path)), "figures", seeds=(0,))
    assert "\n" not in str(raised.value)


def test_set_makes_an_axis_as_if_the_space_stated_it():
    plain, derived = load_space("wd_grid"), load_space("wd_grid", ["weight_decay=0,1e-3", "loss=dice"])
    assert derived.axes == {"pretrained": [False, True], "weight_decay": [0.0, 1e-3]}
    assert derived.roles == plain.roles
    assert derived.base == {**plain.base, "loss": "dice"}
    assert plain.axes == load_space("wd_grid").axes, "the space itself changed"
    ids = {trial.trial_id for trial in plan(plain, "figures", weights="w")}
    without = load_space("wd_grid", ["weight_decay=0,1e-3"])
    assert {trial.trial_id for trial in plan(without, "figures", weights="w")} < ids


@pytest.mark.parametrize(
    ("override", "values", "role"),
    [
        ("learning_rate=0.01,0.1", [0.01, 0.1], "tuned"),
        ("optimizer=sgd,adamw", ["sgd", "adamw"], "tuned"),
        ("loss=cross_entropy,cross_entropy+dice", ["cross_entropy", "cross_entropy+dice"], "treatment"),
        ("class_weights=none,1+20", ["none", (1.0, 20.0)], "treatment"),
        ("tasks=semseg,semseg+parts", [("semseg",), ("semseg", "parts")], "arm"),
        ("label_fraction=0.5,1", [0.5, 1.0], "nuisance"),
        ("epochs_factor=1,2", [1.0, 2.0], "treatment"),
        ("freeze_batch_norm=yes,no", [True, False], "treatment"),
    ],
)
def test_an_axis_that_set_adds_has_its_usual_role(override, values, role):
    space = load_space("wd_grid", [override])
    axis = override.partition("=")[0]
    assert (space.axes[axis], space.roles[axis]) == (values, role)


def test_a_single_value_replaces_what_some_data_have():
    space = load_space("wd_grid", ["model=fcn16s", "weight_decay=0.001"])
    assert "weight_decay" not in space.axes
    configs = [trial.config for trial in plan(space, "figures", weights="w")]
    assert {(config.model, config.weight_decay) for config in configs} == {("fcn16s", 0.001)}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "wieght_decay=0,1",
            "--set wieght_decay=0,1: unknown field 'wieght_decay': did you mean 'weight_decay'",
        ),
        ("weight_decay=a,b", "weight_decay=a: expected float"),
        ("epochs=1.5", r"epochs=1\.5: expected int"),
        ("pretrained=maybe", "pretrained=maybe: expected bool"),
        ("output_stride=x", "output_stride=x: expected int or none"),
        ("seed=0,1", "a study sets seed itself; state SEEDS"),
        ("weight_decay", "expected FIELD=VALUE,VALUE once for each field"),
        ("weight_decay=0,0", "lists 0.0 twice"),
    ],
)
def test_what_set_cannot_mean_is_refused(override, message):
    with pytest.raises(UserError, match=message):
        load_space("wd_grid", [override])


def test_a_rehearsal_keeps_all_three_initializations():
    assert rehearsal_overrides(load_space("self_figures")) == ("weight_decay=0.0,0.001",)
