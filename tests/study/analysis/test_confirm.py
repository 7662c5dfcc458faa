import json

import pytest

from segstrat.errors import UserError
from study.analysis.conclusion import answer_study
from study.analysis.confirm import confirm_cells
from study.analysis.study import Study
from study.analysis.thesis import comparison
from study.cli import parse
from study.driver.confirm import parent_of
from study.driver.prepare import TO_BE_MADE, open_study, plan_study
from study.frame import write_frames
from study.planning.space import load_space
from study.planning.trials import plan
from study.reporting.plot_contrasts import seed_table
from study.reporting.plot_treatment import treatment_table


def opened(folder):
    write_frames(folder)
    return Study.open(folder)


def entry(make_trial, decay, seed, value, *, pretrained=False, **more):
    axes = {"pretrained": pretrained, "weight_decay": decay, "seed": seed}
    return make_trial(axes, value, **more)


def decays(cells):
    return [cell.axes["weight_decay"] for cell in cells]


def test_the_best_cells_of_each_arm_and_the_reference(study_writer, make_trial):
    raw = {0.0: 0.20, 1e-4: 0.30, 5e-4: 0.33, 1e-3: 0.25}
    pre = {0.0: 0.45, 1e-4: 0.44, 5e-4: 0.40, 1e-3: 0.39}
    trials = [
        entry(make_trial, decay, seed, value + 0.01 * seed, pretrained=is_pre)
        for is_pre, cells in ((False, raw), (True, pre))
        for decay, value in cells.items()
        for seed in (0, 1)
    ]
    found = confirm_cells(opened(study_writer(trials)), 2)
    assert decays(found["raw"]) == [5e-4, 1e-4, 0.0]
    assert [cell.rank for cell in found["raw"]] == [1, 2, None]
    assert [cell.reference for cell in found["raw"]] == [False, False, True]
    # The pre-trained arm needs no reference: closure is measured from raw.
    assert decays(found["pre-trained"]) == [0.0, 1e-4]
    assert all("seed" not in cell.axes for cells in found.values() for cell in cells)


def test_a_stopped_cell_comes_after_completed_ones_however_high_it_was(study_writer, make_trial):
    trials = [
        entry(make_trial, 0.0, 0, 0.20),
        entry(make_trial, 1e-4, 0, [0.1, 0.5], status="stopped", stop_epoch=2, stop_rung=0, epochs=4),
        entry(make_trial, 5e-4, 0, 0.25),
    ]
    found = confirm_cells(opened(study_writer(trials)), 2)
    assert decays(found["raw"]) == [5e-4, 0.0]


def test_a_diverged_seed_pulls_its_cell_down(study_writer, make_trial):
    trials = [entry(make_trial, 5e-4, seed, 0.30) for seed in (0, 1, 2)]
    trials += [entry(make_trial, 1e-3, seed, 0.34) for seed in (0, 1)]
    trials += [entry(make_trial, 1e-3, 2, [0.2, None], status="diverged", epochs=4)]
    found = confirm_cells(opened(study_writer(trials)), 1)
    assert decays(found["raw"]) == [5e-4]


def test_a_missing_seed_neither_helps_nor_harms(study_writer, make_trial):
    """Seed 1 is hard for every cell; the cell that failed there must not win by its absence."""
    trials = [
        entry(make_trial, decay, 0, 0.40 + shift) for decay, shift in ((0.0, 0), (1e-4, 0.01), (5e-4, 0.02))
    ]
    trials += [entry(make_trial, decay, 1, 0.20 + shift) for decay, shift in ((0.0, 0), (5e-4, 0.02))]
    trials += [entry(make_trial, 1e-4, 1, [0.1], status="failed", error="disk is full", epochs=4)]
    found = confirm_cells(opened(study_writer(trials)), 1)
    assert decays(found["raw"])[0] == 5e-4


def test_ties_go_to_the_weaker_treatment(study_writer, make_trial):
    trials = [entry(make_trial, decay, 0, 0.30) for decay in (1e-3, 5e-4, 1e-4)]
    found = confirm_cells(opened(study_writer(trials)), 2)
    assert decays(found["raw"]) == [1e-4, 5e-4]


def test_the_reference_is_the_same_for_confirmation_verdict_cells_figures_and_thesis(
    study_writer, make_trial
):
    """On a grid without weight decay 0 there is no reference: its smallest value must not stand in for it."""
    for smallest, has_reference in ((0.0, True), (1e-4, False)):
        trials = [
            entry(make_trial, decay, seed, value + 0.01 * seed, pretrained=pretrained)
            for pretrained, values in ((False, (0.2, 0.3)), (True, (0.4, 0.4)))
            for decay, value in zip((smallest, 5e-4), values, strict=True)
            for seed in (0, 1, 2)
        ]
        study = opened(study_writer(trials, name=f"smallest {smallest}"))
        found = answer_study(study)
        cells = confirm_cells(study, 2)["raw"]
        assert any(cell.reference for cell in cells) is has_reference
        assert (found.primary[0].contrasts.reference is not None) is has_reference
        assert found.cells["semseg"]["reference"].any() == has_reference
        assert (seed_table(found.primary[0])["column"] == "raw, reference").any() == has_reference
        assert ("no reference" in found.sentence) is not has_reference


def test_treatments_that_are_not_compared_are_held_at_the_reference(study_writer, make_trial):
    """Without dropout 0 no trial is comparable with the thesis, which used none."""
    rows = {}
    for rates in ((0.0, 0.3), (0.1, 0.3)):
        trials = [
            make_trial(
                {"pretrained": pretrained, "weight_decay": decay, "dropout": rate, "seed": 0, "data": "d1"},
                0.3 + rate,
            )
            for pretrained in (False, True)
            for decay in (0.0, 5e-4)
            for rate in rates
        ]
        roles = {"pretrained": "arm", "weight_decay": "treatment", "dropout": "treatment"}
        study = opened(study_writer(trials, name=f"dropout {rates[0]}", roles=roles))
        shown = treatment_table(study, "weight_decay", "semseg")
        rows[rates[0]] = (len(comparison(study, "semseg")), len(shown))
    assert rows[0.0] == (4, 16)
    assert rows[0.1] == (0, 0)


def test_more_cells_than_there_are_gives_all_that_ran(study_writer, make_trial):
    trials = [entry(make_trial, 0.0, 0, 0.3), entry(make_trial, 1e-4, 0, [], status="not started", epochs=4)]
    found = confirm_cells(opened(study_writer(trials)), 9)
    assert decays(found["raw"]) == [0.0]


def test_single_task_and_multi_task_arms_are_confirmed_each(study_writer, make_trial):
    trials = [
        make_trial(
            {"pretrained": False, "tasks": tasks, "weight_decay": decay, "seed": 0}, value, tasks=tasks
        )
        for tasks in (["semseg"], ["parts"], ["semseg", "parts"])
        for decay, value in ((0.0, 0.2), (1e-3, 0.3))
    ]
    roles = {"pretrained": "arm", "tasks": "arm", "weight_decay": "treatment"}
    found = confirm_cells(opened(study_writer(trials, roles=roles)), 1)
    # The reference is single-task: multi-task training without weight decay is not one.
    assert {name: decays(cells) for name, cells in found.items()} == {
        "raw, semseg": [1e-3, 0.0], "raw, parts": [1e-3, 0.0], "raw, multi-task": [1e-3]
    }  # fmt: skip


def test_nothing_to_confirm_is_said(study_writer, make_trial):
    study = opened(study_writer([entry(make_trial, 0.0, 0, [0.1], status="failed", epochs=4)]))
    with pytest.raises(UserError, match="no completed trial"):
        confirm_cells(study, 1)
    good = opened(study_writer([entry(make_trial, 0.0, 0, 0.1)], name="good"))
    with pytest.raises(UserError, match="at least one cell"):
        confirm_cells(good, 0)


@pytest.fixture
def screened(study_writer, make_trial):
    """`screened(name, weights=…)` writes a study of wd_grid whose raw arm likes 1e-3, the other one 1e-4."""

    def write(name="screen", seeds=(0,), **options):
        trials = plan(load_space("wd_grid"), "figures", seeds=seeds, weights=TO_BE_MADE)
        entries = []
        for trial in trials:
            best = 1e-4 if trial.config.pretrained else 1e-3
            value = 0.3 - 0.01 * abs(trial.config.weight_decay / best - 1) ** 0.5
            entries.append(make_trial(trial.axes, max(value, 0.05)))
        recorded = {"space": "wd_grid", "data": "figures", "budget": 1.0, "scheduler": "asha", **options}
        folder = study_writer(
            entries, name, planned=[trial.to_dict() for trial in trials], options=recorded, seeds=list(seeds)
        )
        write_frames(folder)
        return folder

    return write


def confirm(folder, *flags):
    opened = open_study(parse(["--confirm", str(folder), "--storage", str(folder.parent), *flags]))
    return opened.space, plan_study(opened), opened.settings


def test_the_flag_plans_the_best_cells_to_the_end_on_new_seeds(screened):
    folder = screened(seeds=(0, 1))
    space, trials, options = confirm(folder, "--top", "2")
    assert (space.name, options.name, options.scheduler) == ("wd_grid", "screen-confirm", "none")
    assert {trial.axes["seed"] for trial in trials} == {2, 3, 4}
    raw = {trial.config.weight_decay for trial in trials if not trial.config.pretrained}
    pretrained = {trial.config.weight_decay for trial in trials if trial.config.pretrained}
    assert raw == {1e-3, 5e-4, 0.0}, "the two best, and the reference"
    assert len(pretrained) == 2
    assert 1e-4 in pretrained
    assert len(trials) == 3 * 5
    parent = parent_of(options, trials)
    assert (parent["study"], parent["folder"], parent["top"]) == ("screen", str(folder), 2)
    assert len(parent["cells"]) == 5


def test_a_resumed_confirmation_plans_the_same_trials_in_the_same_order(screened):
    folder = screened()
    _, trials, options = confirm(folder, "--seeds", "7,8", "--precision", "bfloat16")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"options": options.to_dict(), "parent": parent_of(options, trials)}
    child = folder.parent / "screen-confirm"
    child.mkdir()
    (child / "manifest.json").write_text(json.dumps(manifest))
    for flags in (["--name", "screen-confirm"], ["--confirm", str(folder)]):
        resumed = open_study(parse(["--resume", *flags, "--storage", str(folder.parent)]))
        assert resumed.settings.numerics.precision == "bfloat16"
        assert plan_study(resumed) == trials
    for flags, words in ((["--top", "5"], "started with 3"), (["--confirm", "elsewhere"], "started with")):
        command = ["--resume", "--name", "screen-confirm", *flags, "--storage", str(folder.parent)]
        with pytest.raises(UserError, match=words):
            open_study(parse(command))


def test_seeds_of_the_screen_are_refused(screened):
    folder = screened()
    with pytest.raises(UserError, match=r"--seeds 0: the cells of screen were chosen on seeds \[0\]"):
        confirm(folder, "--seeds", "0,5,6")
    assert {trial.axes["seed"] for trial in confirm(folder, "--seeds", "5,6")[1]} == {5, 6}


def test_another_recipe_than_the_screens_is_refused(screened):
    folder = screened()
    manifest = (folder / "manifest.json").read_text()
    for trial in plan(load_space("wd_grid"), "figures", weights=TO_BE_MADE):
        manifest = manifest.replace(trial.trial_id, trial.trial_id[::-1])
        (folder / "trials" / trial.trial_id).rename(folder / "trials" / trial.trial_id[::-1])
    (folder / "manifest.json").write_text(manifest)
    write_frames(folder)
    with pytest.raises(UserError, match="recipe of space wd_grid has changed"):
        confirm(folder)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--confirm", "results/a", "--space", "wd_grid"], "leave out --space"),
        (["--confirm", "results/a", "--scheduler", "asha"], "trains every cell to its end"),
        (["--space", "wd_grid", "--top", "3"], "give --confirm DIR"),
        (["--confirm", "results/a", "--top", "0"], "at least 1"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, message):
    with pytest.raises(UserError, match=message):
        parse(flags)


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(UserError, match="contains no study"):
        confirm(tmp_path / "nothing")
