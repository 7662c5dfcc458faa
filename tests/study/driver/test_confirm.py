"""`--confirm DIR`: the answering stage alone, on the cells that another study nominates."""

import json

import pytest

from segstrat.errors import UserError
from study.cli import parse
from study.driver.confirm import parent_of
from study.driver.prepare import TO_BE_MADE, make_search, open_study, plan_study
from study.planning.space import load_space
from study.planning.trials import plan

BEST = {False: 1e-3, True: 1e-4}


@pytest.fixture
def screened(study_writer, make_trial):
    """`screened(name, seeds=…)` writes a study of wd_grid whose best cells are those of BEST."""

    def write(name="screen", seeds=(0,), status=None, **options):
        trials = plan(load_space("wd_grid"), "figures", seeds=seeds, weights=TO_BE_MADE)
        entries = []
        for trial in trials:
            distance = abs(trial.config.weight_decay / BEST[trial.config.pretrained] - 1) ** 0.5
            curve = [max(0.3 - 0.01 * distance, 0.05) * share for share in (0.5, 1.0)]
            entries.append(make_trial(trial.axes, curve, epochs=2, **({"status": status} if status else {})))
        recorded = {"space": "wd_grid", "data": "figures", "budget": 1.0, "confirm": "", "top": 0, **options}
        planned = [trial.to_dict() for trial in trials]
        return study_writer(entries, name, planned=planned, options=recorded, seeds=list(seeds))

    return write


def confirm(folder, *flags):
    return open_study(parse(["--confirm", str(folder), "--storage", str(folder.parent), *flags]))


def decays(trials, *, pretrained):
    return {trial.config.weight_decay for trial in trials if trial.config.pretrained == pretrained}


def test_the_best_cells_and_the_reference_are_trained_on_fresh_seeds(screened):
    folder = screened(seeds=(0, 1))
    opened = confirm(folder, "--top", "2")
    trials = plan_study(opened)
    settings = opened.settings
    assert (settings.space, settings.name, settings.scheduler) == ("wd_grid", "screen-confirm", "none")
    assert decays(trials, pretrained=False) == {1e-3, 5e-4, 0.0}, "the two best, and the reference"
    assert decays(trials, pretrained=True) == {1e-4}, "one of the two until it may not stay ahead"
    first_look = opened.design.looks[0]
    assert {trial.config.seed for trial in trials} == set(range(2, 2 + first_look))
    assert len(trials) == 4 * first_look
    assert [trial.stage for trial in trials] == ["answering"] * len(trials)
    parent = parent_of(settings)
    assert (parent["study"], parent["folder"], parent["top"]) == ("screen", str(folder), 2)


def test_seeds_that_are_given_are_all_trained(screened):
    opened = confirm(screened(), "--seeds", "5,6")
    trials = plan_study(opened)
    assert {trial.config.seed for trial in trials} == {5, 6}
    assert opened.design.looks == (2,)
    assert make_search(opened, trials).remaining([]) == len(trials)


@pytest.mark.parametrize("flags", [["--name", "screen-confirm"], []])
def test_a_resumed_confirmation_keeps_its_trials(screened, flags):
    folder = screened()
    opened = confirm(folder, "--precision", "bfloat16", "--max-seeds", "4")
    trials = plan_study(opened)
    manifest = json.loads((folder / "manifest.json").read_text()) | {
        "options": opened.settings.to_dict(), "design": opened.design.to_dict(),
        "trials": [trial.to_dict() for trial in trials], "parent": parent_of(opened.settings),
    }  # fmt: skip
    child = folder.parent / "screen-confirm"
    child.mkdir()
    (child / "manifest.json").write_text(json.dumps(manifest))
    command = ["--resume", *(flags or ["--confirm", str(folder)]), "--storage", str(folder.parent)]
    resumed = open_study(parse(command))
    assert resumed.settings == opened.settings
    assert plan_study(resumed) == trials
    extended = open_study(parse([*command, "--max-seeds", "9"]))
    assert extended.design.max_seeds == 9
    assert extended.design.looks[: len(opened.design.looks)] == opened.design.looks
    for flag, value in (("--top", "5"), ("--confirm", str(folder.parent / "screen-confirm"))):
        with pytest.raises(UserError, match="was started with"):
            open_study(parse([*command, flag, value]))


def test_seeds_of_the_screen_are_refused(screened):
    with pytest.raises(UserError, match=r"--seeds 0: the cells of screen were chosen on seeds \[0\]"):
        confirm(screened(), "--seeds", "0,1,2")
    with pytest.raises(UserError, match="consecutive seeds"):
        confirm(screened(name="other"), "--seeds", "5,7")


def test_another_recipe_than_the_screens_is_refused(screened):
    folder = screened()
    manifest = (folder / "manifest.json").read_text()
    for trial in plan(load_space("wd_grid"), "figures", weights=TO_BE_MADE):
        manifest = manifest.replace(trial.trial_id, trial.trial_id[::-1])
        (folder / "trials" / trial.trial_id).rename(folder / "trials" / trial.trial_id[::-1])
    (folder / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match="recipe of space wd_grid has changed"):
        plan_study(confirm(folder))


def test_a_study_without_results_cannot_be_confirmed(screened, tmp_path):
    with pytest.raises(UserError, match="no trial has ended"):
        plan_study(confirm(screened(status="not started")))
    with pytest.raises(UserError, match="contains no study"):
        confirm(tmp_path / "nothing")


def test_a_study_of_one_stage_gets_more_seeds_and_keeps_the_order(study_writer, make_trial, tmp_path):
    line = ["--space", "wd_grid", "--scheduler", "none"]
    flags = parse([*line, "--seeds", "0", "--storage", str(tmp_path / "new")])
    opened = open_study(flags)
    assert opened.design is None
    trials = plan_study(opened)
    folder = study_writer(
        [make_trial(trial.axes, 0.3) for trial in trials], "wd_grid-figures",
        planned=[trial.to_dict() for trial in trials], options=opened.settings.to_dict(), seeds=[0],
    )  # fmt: skip
    storage = ["--storage", str(folder.parent)]
    again = open_study(parse([*line, *storage, "--resume", "--seeds", "0,1"]))
    more = plan_study(again)
    assert more[:12] == trials
    assert {trial.config.seed for trial in more[12:]} == {1}
    assert [trial.order for trial in more] == list(range(24))
    with pytest.raises(UserError, match="has no answering stage"):
        open_study(parse([*line, *storage, "--resume", "--max-seeds", "5"]))


def test_a_space_without_candidates_has_one_stage(tmp_path):
    storage = ["--storage", str(tmp_path)]
    assert open_study(parse(["--space", "backbones", *storage])).design is None
    with pytest.raises(UserError, match="space backbones has no reference"):
        open_study(parse(["--space", "backbones", "--max-seeds", "5", *storage]))
    assert open_study(parse(["--space", "wd_grid", *storage])).settings.seeds == (0, 1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--confirm", "results/a", "--space", "wd_grid"], "leave out --space"),
        (["--confirm", "results/a", "--scheduler", "asha"], "trains every cell to its end"),
        (["--confirm", "results/a", "--seeds", "1", "--max-seeds", "3"], "not both"),
        (["--confirm", "results/a", "--top", "0"], "at least 1"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, message):
    with pytest.raises(UserError, match=message):
        parse(flags)
