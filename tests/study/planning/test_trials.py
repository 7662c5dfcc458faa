import dataclasses
from collections import Counter
from types import ModuleType

import pytest
from ray import tune

from segstrat.errors import UserError
from segstrat.formatting import format_value
from study.planning.space import Distribution, load_space, quasi_random, space_from_module
from study.planning.trials import PlannedTrial, plan


def module(**parts) -> ModuleType:
    """A space like a file in search_spaces/, with parts replaced; None removes a part."""
    defaults = {
        "__doc__": "A question?",
        "QUESTION": "A question?",
        "BASE": {"model": "fcn32s"},
        "SPACE": {
            "pretrained": tune.grid_search([False, True]),
            "weight_decay": tune.grid_search([0.0, 1e-3]),
        },
        "ROLES": {"pretrained": "arm", "weight_decay": "treatment"},
        "METRIC": "semseg_val_miou",
    }
    made = ModuleType("toy")
    made.__file__ = None
    for name, value in (defaults | parts).items():
        if value is not None:
            setattr(made, name, value)
    return made


def test_strategies_and_regularizers_need_no_role_and_the_first_task_is_the_metric():
    space = space_from_module("toy", module(ROLES=None, METRIC=None))
    assert list(space.roles.items()) == [("pretrained", "arm"), ("weight_decay", "treatment")]
    assert space.metric.name == "semseg_val_miou"
    own = {"BASE": {"model": "fcn32s", "tasks": ("parts",)}, "ROLES": {"weight_decay": "nuisance"}}
    space = space_from_module("toy", module(METRIC=None, **own))
    assert space.roles == {"pretrained": "arm", "weight_decay": "nuisance"}
    assert space.metric.name == "parts_val_miou"
    tasks = {"tasks": tune.grid_search([("boundaries",), ("boundaries", "semseg")])}
    assert (
        space_from_module("toy", module(SPACE=tasks, ROLES=None, METRIC=None)).metric.name
        == "boundaries_val_miou"
    )


def test_wd_grid_is_the_thesiss_grid_with_two_values_more():
    space = load_space("wd_grid")
    trials = plan(space, "d1", weights="imagenet")
    assert len(trials) == 12
    for trial in trials:
        pretrained = trial.config.pretrained
        assert trial.config.epochs == (100 if pretrained else 300)
        assert trial.config.learning_rate == 5e-3
        assert trial.config.weights == ("imagenet" if pretrained else None)
        assert trial.arm == ("pre-trained" if pretrained else "raw")
    assert {trial.config.weight_decay for trial in trials} == {0.0, 1e-4, 5e-4, 1e-3, 5e-3, 2e-2}


def test_the_order_is_shuffled_and_the_same_every_time():
    space = load_space("wd_grid")
    first, second = plan(space, "figures", weights="w"), plan(space, "figures", weights="w")
    assert first == second
    assert [trial.order for trial in first] == list(range(12))
    decays = [trial.config.weight_decay for trial in first]
    assert decays != sorted(decays)
    assert [trial.arm for trial in first] != sorted(trial.arm for trial in first)


def test_an_interrupted_study_has_complete_seeds():
    trials = plan(load_space("wd_grid"), "figures", seeds=(0, 1, 2), weights="w")
    assert [trial.config.seed for trial in trials] == [0] * 12 + [1] * 12 + [2] * 12


def test_seeds_replicate_every_cell_and_pairs_share_all_but_the_arm():
    trials = plan(load_space("wd_grid"), "figures", seeds=(0, 1, 2), weights="w")
    assert len(trials) == 36
    raw, pretrained = (
        next(t.config for t in trials if t.axes == {"pretrained": arm, "weight_decay": 0.0, "seed": 1})
        for arm in (False, True)
    )
    differing = {name for name, value in raw.to_dict().items() if pretrained.to_dict()[name] != value}
    assert {"pretrained", "weights"} <= differing <= {"pretrained", "weights", "epochs"}


def test_a_budget_scales_every_trials_epochs():
    trials = plan(load_space("wd_grid"), "d1", budget=0.1, weights="w")
    assert {trial.config.epochs for trial in trials} == {10, 30}
    assert {t.config.epochs for t in plan(load_space("wd_grid"), "d1", budget=1e-6, weights="w")} == {1}


def test_a_planned_trial_survives_the_manifest():
    for trial in plan(load_space("wd_grid"), "figures", weights="w"):
        assert PlannedTrial.from_dict(trial.to_dict()) == trial


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"QUESTION": None}, "QUESTION missing"),
        ({"SPACE": {"batch_size": tune.grid_search([4, 8])}, "ROLES": {}}, "'batch_size' has no role"),
        ({"METRIC": "miou"}, "METRIC is 'miou'; expected one of"),
        ({"SPACE": {"weight_decay": tune.grid_search([])}}, "axis 'weight_decay' has no values"),
        ({"SPACE": {"weight_decay": tune.grid_search([0.1, 0.1])}}, r"lists 0\.1 twice"),
        ({"SPACE": {"wieght_decay": tune.grid_search([0.1])}}, "did you mean 'weight_decay'"),
        ({"SPACE": {"weight_decay": 0.1}}, "a fixed value belongs in BASE"),
        ({"ROLES": {"pretrained": "arm", "weight_decay": "axis"}}, "has role 'axis'"),
        ({"ROLES": {"pretrained": "arm", "weight_decay": "treatment", "dropout": "arm"}}, "names 'dropout'"),
        ({"SEARCH": "random"}, "expected 'grid' or 'tpe'"),
        (
            {"SPACE": {"seed": tune.grid_search([0, 1])}, "ROLES": {"seed": "nuisance"}},
            r"SPACE names 'seed', which a study sets itself; state SEEDS = \(0, 1, 2\) or give --seeds",
        ),
        ({"BASE": ["fcn8s"]}, r"BASE is \['fcn8s'\]; expected a dict"),
        ({"SPACE": [1]}, r"SPACE is \[1\]; expected a dict"),
        ({"ON": 3}, "ON is 3; expected a dict"),
        ({"ON": {"figures": "fcn8s"}}, r"ON\['figures'\] is 'fcn8s'; expected a dict"),
        ({"BASE": {"weights": "imagenet"}}, "BASE names 'weights'.*give --weights"),
        ({"ON": {"figures": {"data": "d1"}}}, r"ON\['figures'\] names 'data'.*give --data"),
        (
            {"ROLES": {"pretrained": "arm", "weight_decay": "tuned"}},
            "'weight_decay' is part of what is compared",
        ),
        (
            {
                "SPACE": {"learning_rate": tune.grid_search([0.1])},
                "ROLES": {"learning_rate": "tuned"},
                "SEARCH": "tpe",
            },
            "a search draws every axis that is not an arm; give distributions instead",
        ),
        (
            {"METRIC": "semseg_miou"},
            "METRIC is 'semseg_miou'; expected one of <task>_val_miou, <task>_val_dice",
        ),
        ({"METRIC": "cars_val_iou_car"}, "with <task> one of semseg, parts, boundaries"),
    ],
)
def test_an_unsound_space_is_refused_with_the_axis_named(parts: dict, message: str):
    with pytest.raises(UserError, match=message):
        space_from_module("toy", module(**parts))


def test_a_recipe_does_not_set_what_a_study_sets():
    space = space_from_module("toy", module(recipe=lambda *_, **__: {"seed": 3}))
    with pytest.raises(UserError, match="space toy: recipe names 'seed', which a study sets itself"):
        plan(space, "d1", weights="w")


def test_a_bad_value_is_refused_with_the_trial_named():
    bad = module(SPACE={"dropout": tune.grid_search([0.0, 1.5])}, ROLES={"dropout": "treatment"})
    with pytest.raises(UserError, match=r"space toy, trial \(dropout=1.5\): TrialConfig.dropout=1.5"):
        plan(space_from_module("toy", bad), "d1")


def test_a_study_of_boundaries_counts_them():
    boundaries = {"METRIC": "semseg_val_boundary_f1"}
    for base, tolerance in (({}, 0.0075), ({"boundary_tolerance": 0.02}, 0.02)):
        base = {"model": "fcn32s"} | base
        trials = plan(space_from_module("toy", module(BASE=base, **boundaries)), "d1", weights="w")
        assert {trial.config.boundary_tolerance for trial in trials} == {tolerance}
    assert plan(space_from_module("toy", module()), "d1", weights="w")[0].config.boundary_tolerance == 0
    space = space_from_module(
        "toy", module(BASE={"model": "fcn32s", "boundary_tolerance": 0.0}, **boundaries)
    )
    with pytest.raises(
        UserError, match="boundary_tolerance is 0, so that semseg_val_boundary_f1, its METRIC"
    ):
        plan(space, "d1", weights="w")


def test_an_axis_without_effect_is_refused():
    twins = module(
        SPACE={"epochs_factor": tune.grid_search([1.0, 1.0001])}, ROLES={"epochs_factor": "nuisance"}
    )
    with pytest.raises(UserError, match="the same training run"):
        plan(space_from_module("toy", twins), "d1")


@pytest.mark.parametrize("seeds", [(), (0, 0), (-1,)])
def test_bad_seeds_are_refused(seeds: tuple[int, ...]):
    with pytest.raises(UserError, match="seeds"):
        plan(load_space("wd_grid"), "d1", seeds=seeds, weights="w")


def test_an_unknown_space_lists_the_known_ones():
    with pytest.raises(UserError, match="unknown space 'wd_gird': did you mean 'wd_grid'"):
        load_space("wd_gird")


def test_sampled_axes_draw_the_same_points_in_every_arm_and_cover_the_range():
    sampled = module(
        SPACE={
            "pretrained": tune.grid_search([False, True]),
            "weight_decay": tune.loguniform(1e-5, 1e-1),
            "dropout": tune.uniform(0.0, 0.5),
        },
        ROLES={"pretrained": "arm", "weight_decay": "treatment", "dropout": "treatment"},
        SAMPLES=17,
    )
    trials = plan(space_from_module("toy", sampled), "d1", weights="w")
    assert len(trials) == 34
    raw, pretrained = (
        sorted((t.config.weight_decay, t.config.dropout) for t in trials if t.config.pretrained == arm)
        for arm in (False, True)
    )
    assert raw == pretrained
    assert raw.pop(0) == (0.0, 0.0), "the unregularized point, which no distribution draws"
    # A Sobol sequence puts one of 16 points in each sixteenth of every axis.
    assert [int((decay_dropout[1]) / 0.5 * 16) for decay_dropout in sorted(raw, key=lambda p: p[1])] == list(
        range(16)
    )


def test_quasi_random_points_are_reproducible():
    domain = {"weight_decay": Distribution(low=1e-5, high=1e-1, log=True)}
    assert quasi_random(domain, 5) == quasi_random(domain, 5)
    assert all(1e-5 <= point["weight_decay"] <= 1e-1 for point in quasi_random(domain, 5))


def test_a_planned_trial_has_a_descriptive_label():
    trial = plan(load_space("wd_grid"), "figures", weights="w")[0]
    assert trial.label == f"{trial.arm} weight_decay={format_value(trial.config.weight_decay)} seed=0"
    assert dataclasses.replace(trial, arm="raw, multi-task").label.startswith("raw, multi-task weight_decay")


def test_the_reference_is_raw_single_task_and_unregularized():
    trials = plan(load_space("dropout_wd"), "figures", weights="w")
    references = [trial.axes for trial in trials if trial.reference]
    assert references == [
        {"pretrained": False, "tasks": ("semseg",), "weight_decay": 0.0, "dropout": 0.0, "seed": 0}
    ]
    weakest = [
        trial.axes for trial in plan(load_space("regularizers"), "figures", weights="w") if trial.reference
    ]
    assert [(axes["augmentation"], axes["label_smoothing"], axes["epochs_factor"]) for axes in weakest] == [
        (0.5, 0.0, 1)
    ]


def test_trials_compete_within_context_arm_and_seed():
    trials = plan(load_space("label_fraction"), "figures", seeds=(0, 1), weights="w")
    groups = Counter(trial.group for trial in trials)
    assert len(groups) == 4 * 2 * 2, "fractions × arms × seeds"
    assert set(groups.values()) == {3}, "the weight decays"
    assert {trial.context for trial in trials} == {
        f"label_fraction={share}" for share in ("0.125", "0.25", "0.5", "1")
    }


def test_a_tuned_axis_is_part_of_the_cell_and_not_of_the_setting():
    tuned = module(
        SPACE={
            "pretrained": tune.grid_search([False, True]),
            "learning_rate": tune.grid_search([0.01, 0.1]),
            "weight_decay": tune.grid_search([0.0, 1e-3]),
        },
        ROLES={"pretrained": "arm", "learning_rate": "tuned", "weight_decay": "treatment"},
    )
    trials = plan(space_from_module("toy", tuned), "d1", weights="w")
    assert len(trials) == 8
    assert len({trial.cell for trial in trials}) == 8
    assert {trial.setting for trial in trials} == {
        "raw weight_decay=0", "raw weight_decay=0.001",
        "pre-trained weight_decay=0", "pre-trained weight_decay=0.001",
    }  # fmt: skip
    references = {trial.cell for trial in trials if trial.reference}
    assert references == {"raw weight_decay=0 (learning_rate=0.01)", "raw weight_decay=0 (learning_rate=0.1)"}
    assert all(PlannedTrial.from_dict(trial.to_dict()) == trial for trial in trials)


def test_a_tuned_axis_may_be_drawn_for_every_setting_of_a_grid():
    toy = module(
        SPACE={
            "pretrained": tune.grid_search([False, True]),
            "weight_decay": tune.grid_search([0.0, 0.1]),
            "learning_rate": tune.loguniform(1e-3, 1e-1),
        },
        ROLES={"pretrained": "arm", "weight_decay": "treatment", "learning_rate": "tuned"},
        SAMPLES=4,
    )
    trials = plan(space_from_module("toy", toy), "figures", weights="w")
    rates = {}
    for trial in trials:
        rates.setdefault(trial.setting, set()).add(trial.config.learning_rate)
    assert len(trials) == 16
    assert len(set(map(frozenset, rates.values()))) == 1, "settings try different rates"
    assert all(trial.tuned == ("learning_rate",) for trial in trials)
    assert sum(trial.reference for trial in trials) == 4


@pytest.mark.parametrize(("search", "known"), [("grid", 16), ("tpe", 8)])
def test_a_tuned_axis_may_be_drawn_with_the_treatments(search, known):
    toy = module(
        SPACE={
            "pretrained": tune.grid_search([False, True]),
            "learning_rate": tune.loguniform(1e-3, 1e-1),
            "weight_decay": tune.loguniform(1e-5, 1e-2),
        },
        ROLES={"pretrained": "arm", "weight_decay": "treatment", "learning_rate": "tuned"},
        SAMPLES=16,
        SEARCH=search,
    )
    trials = plan(space_from_module("toy", toy), "figures", weights="w")
    references = [trial for trial in trials if trial.reference]
    assert len(trials) == 2 * known
    assert len({trial.config.learning_rate for trial in references}) == len(references) == known // 4
    drawn = [trial for trial in trials if trial.axes["weight_decay"] > 0 and not trial.config.pretrained]
    assert len({trial.config.learning_rate for trial in drawn}) == len(drawn) == known - known // 4


def test_single_task_arms_train_by_plain_sgd_where_the_others_update_asynchronously():
    trials = plan(load_space("multitask"), "d1+d2", weights="w")
    assert len(trials) == 6
    assert {trial.config.asynchronous for trial in trials if trial.config.multi_task} == {True}
    assert {trial.config.asynchronous for trial in trials if not trial.config.multi_task} == {False}
    chosen = space_from_module(
        "toy",
        module(
            BASE={"model": "fcn32s", "tasks": ("semseg",)},
            SPACE={"asynchronous": tune.grid_search([False, True])},
            ROLES={"asynchronous": "nuisance"},
        ),
    )
    assert {trial.config.asynchronous for trial in plan(chosen, "d1")} == {False, True}


@pytest.mark.parametrize(
    ("space", "data", "overrides", "planned"),
    [
        # Ideas of the thesis's text that are one override away.
        ("dropout_wd", "d3", ["model=sunet64", "backbone=none"], ("sunet64", ("semseg",), 0.5)),
        ("multitask", "d3", ["tasks=semseg,semseg+parts+boundaries"],
         ("sunet64", ("semseg", "parts", "boundaries"), 0.0)),
    ],
)  # fmt: skip
def test_ideas_of_the_thesis_without_a_space_of_their_own(space, data, overrides, planned):
    trials = plan(load_space(space, overrides), data, weights="w")
    assert planned in {(each.config.model, each.config.tasks, each.config.dropout) for each in trials}


def test_a_recipe_gets_the_fields_that_it_asks_for():
    def recipe(data, model, *, pretrained, label_fraction, dropout):
        return {"epochs": round(10 / label_fraction), "crop_size": 64 + int(100 * dropout)}

    axes = {"label_fraction": tune.grid_search([0.25, 1.0])}
    space = space_from_module(
        "toy", module(SPACE=axes, ROLES={"label_fraction": "nuisance"}, recipe=recipe, CLAIMS=True)
    )
    assert space.claims
    configs = [trial.config for trial in plan(space, "figures")]
    # What neither the space nor its axes state has its default.
    assert {(each.label_fraction, each.epochs, each.crop_size) for each in configs} == {
        (0.25, 40, 64),
        (1.0, 10, 64),
    }


def test_a_space_may_leave_combinations_out():
    space = load_space("photos_regularizers")
    trials = plan(space, "folder", weights="w")
    assert len(trials) == space.size == 9
    strong = Counter()
    for trial in trials:
        config = trial.config
        switches = (config.multi_task, config.weight_decay, config.dropout, config.label_smoothing)
        strong[config.pretrained, sum(map(bool, (*switches, config.augmentation == 1)))] += 1
    assert strong == {(False, 0): 1, (False, 1): 5, (False, 5): 1, (True, 0): 1, (True, 5): 1}


def test_every_label_fraction_gets_equally_many_updates():
    trials = plan(load_space("photos_labels"), "folder", weights="w")
    updates = {
        (trial.config.pretrained, round(trial.config.epochs * trial.config.label_fraction))
        for trial in trials
    }
    assert updates == {(False, 150), (True, 150)}


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (lambda point: point["absent"], "keep failed: KeyError: 'absent'"),
        (lambda _: False, "keep leaves none of the 4 combinations"),
    ],
)
def test_combinations_that_cannot_be_chosen_are_told(keep, message):
    space = space_from_module("toy", module(keep=keep))
    with pytest.raises(UserError, match=message):
        plan(space, "d1", weights="w")


def test_an_axis_that_is_set_to_one_value_leaves_the_others_one_at_a_time():
    trials = plan(load_space("photos_regularizers", ["dropout=0"]), "folder", weights="w")
    assert len(trials) == 1 + 4 + 1 + 2


STARTS = {
    "initialization": tune.grid_search(["raw", "self", "given"]),
    "weight_decay": tune.grid_search([0.0, 1e-3]),
}


def test_initialization_is_an_arm_that_decides_pretrained():
    seen = []

    def recipe(data, model, *, pretrained):
        seen.append(pretrained)
        return {"epochs": 3, "learning_rate": 0.01 if pretrained else 0.02}

    space = space_from_module("toy", module(SPACE=STARTS, ROLES=None, recipe=recipe))
    assert space.roles == {"initialization": "arm", "weight_decay": "treatment"}
    trials = plan(space, "figures", weights="given.pth")
    starts = {trial.config.start: trial for trial in trials}
    assert {start: trial.config.pretrained for start, trial in starts.items()} == {
        "raw": False, "self": True, "given": True,
    }  # fmt: skip
    assert seen.count(True) == 4
    assert starts["self"].config.learning_rate == starts["given"].config.learning_rate == 0.01
    assert {start: trial.arm for start, trial in starts.items()} == {
        "raw": "raw", "self": "self-supervised", "given": "pre-trained",
    }  # fmt: skip
    assert {start: trial.config.weights for start, trial in starts.items()} == {
        "raw": None, "self": "to be pre-trained", "given": "given.pth",
    }  # fmt: skip
    assert {trial.context for trial in trials} == {""}
    assert [trial.config.start for trial in trials if trial.reference] == ["raw"]
    assert len({trial.cell for trial in trials}) == len({trial.trial_id for trial in trials}) == 6


def test_self_supervision_needs_no_weights_and_given_ones_do():
    both = STARTS | {"initialization": tune.grid_search(["raw", "self"])}
    assert len(plan(space_from_module("toy", module(SPACE=both, ROLES=None)), "voc")) == 4
    with pytest.raises(UserError, match=r"initialization='given'.*expected `weights`"):
        plan(space_from_module("toy", module(SPACE=STARTS, ROLES=None)), "voc")


def test_initialization_and_pretrained_may_not_contradict_each_other():
    space = space_from_module("toy", module(BASE={"model": "fcn32s", "initialization": "self"}))
    with pytest.raises(UserError, match="initialization='self': expected pretrained=True, not False"):
        plan(space, "figures", weights="w")


def test_set_replaces_one_switch_by_the_other():
    space = load_space("wd_grid", ["initialization=raw,self,given"])
    assert list(space.axes) == ["weight_decay", "initialization"]
    assert space.roles["initialization"] == "arm"
    assert len(plan(space, "figures", weights="w")) == 18
    back = load_space("self_figures", ["pretrained=yes,no"])
    assert list(back.axes) == ["weight_decay", "pretrained"]
