"""The command line: what flags say and leave to the space, and one sentence for each mistake."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from segstrat.config import Numerics, TrialConfig
from segstrat.errors import UserError
from study.cli import Flags, StudySettings, command_line, make_parser, make_settings, parse
from study.driver.prepare import open_study, plan_study
from study.planning.space import load_space, rehearsal_overrides, space_names
from study.run import main

ROOT = Path(__file__).parents[2]


def test_no_flag_sets_what_a_trial_learns():
    flags = {
        name.lstrip("-").replace("-", "_")
        for action in make_parser()._actions
        for name in action.option_strings
    }
    # The study's data and weights are not what is compared.
    assert flags & {field.name for field in dataclasses.fields(TrialConfig)} == {"data", "weights"}


def test_settings_that_are_given_are_told_from_the_rest():
    line = "--space s --seeds 0,3 --storage here --gpus-per-trial 0.5 --no-cache --compile"
    flags = parse(line.split())
    assert flags == Flags(
        settings={"space": "s", "seeds": (0, 3), "storage": "here", "numerics": {"compile": True}},
        gpus_per_trial=0.5,
        no_cache=True,
    )
    assert parse(["--space", "s", "--gpus-per-trial", "auto"]).gpus_per_trial == "auto"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "--space NAME"),
        ("--resume", "--space NAME"),
        ("--spaec wd_grid", "did you mean --space"),
        ("--space s --zzz", "unknown argument '--zzz'"),
        ("--space s extra", "unknown argument 'extra'"),
        ("--space", "expected one argument"),
        ("--space s --seeds 0,x", "not a list of whole numbers"),
        ("--space s --budget -1", "not a number above 0"),
        ("--space s --budget nan", "not a number above 0"),
        ("--space s --gpus-per-trial 1.5", "whole number"),
        ("--space s --gpus-per-trial -1", "not a number above 0"),
        ("--space s --cpus-per-trial 0", "at least 1"),
        ("--space s --max-concurrent 1.5", "at least 1"),
        ("--space s --scheduler hyperband", "invalid choice: 'hyperband'"),
        ("--space s --name ../x", "not a valid folder name"),
        ("--space s --accept-changes", "needs --resume"),
        ("--quick --max-seeds 3", "leave out --max-seeds"),
        ("--quick --space sobol_wd_dropout", "draws values of"),
        ("--space nowhere.py", "there is no such file"),
        ("--new-space not-a-name", "letters, digits"),
    ],
)
def test_mistakes_are_one_sentence(line, words, capsys):
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert error.startswith("error: ")


def test_a_rehearsal_is_a_study_of_few_values_that_is_named_one(tmp_path):
    flags = parse(["--quick", "--storage", str(tmp_path)])
    opened = open_study(flags)
    trials = plan_study(opened)
    assert opened.settings.name == "quick-wd_grid-figures"
    assert opened.settings.to_dict()["quick"] is True
    assert opened.design is None, "one stage"
    assert {trial.axes["weight_decay"] for trial in trials} == {0.0, 1e-3}
    assert {trial.config.seed for trial in trials} == {0, 1, 2}
    assert len(trials) == 12
    assert {trial.config.epochs for trial in trials} == {2}
    other = open_study(parse(["--quick", "--space", "multitask", "--seeds", "4", "--storage", str(tmp_path)]))
    assert {trial.config.seed for trial in plan_study(other)} == {4}, "a flag that is given stands"


def test_a_rehearsal_keeps_two_values_of_what_is_compared_and_one_of_the_rest():
    space = load_space("wd_lr_grid")
    found = rehearsal_overrides(space, ["weight_decay=0,1"])
    assert found == ("weight_decay=0,1", "learning_rate=0.05"), "what is given stands"
    for name in space_names():
        if (space := load_space(name)).sampled:
            continue
        smaller = load_space(name, rehearsal_overrides(space))
        assert smaller.size <= 2 ** len(space.axes) * (1.5 if "initialization" in space.axes else 1)
        assert set(smaller.roles) == {axis for axis, values in smaller.axes.items() if len(values) > 0}


def test_settings_are_written_as_the_flags_that_give_them():
    line = "--space s --seeds 0,3 --set tasks=semseg+parts,semseg --set width=0.5 --no-compile --budget 0.5"
    settings = parse(line.split()).settings
    assert parse(command_line(settings)).settings == settings


def test_help_needs_neither_torch_nor_ray():
    code = (
        "import sys; from study.run import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(sorted({'torch', 'ray', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert "--gpus-per-trial" in done.stdout


def test_status_needs_neither_torch_nor_ray(study_writer, make_trial):
    folder = study_writer([make_trial({"weight_decay": 0.0, "pretrained": False, "seed": 0}, 0.3)])
    code = (
        f"import sys; from study.run import main; main(['--status', {str(folder)!r}])\n"
        "print(sorted({'torch', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert "1/1 trials done" in done.stdout


@pytest.mark.parametrize("command", [["--list"], ["--space", "wd_grid", "--dry-run"]])
@pytest.mark.usefixtures("few_figures")
def test_looking_starts_nothing(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "wd_grid" in output
    assert list(tmp_path.iterdir()) == []
    if "--dry-run" in command:
        assert output.count("pre-trained ") == 6 + 1, "the first screening seed, and the recipe of the arm"
        assert "looks after 3, 4, 5, 6, 8, 12, 18, 26" in " ".join(output.split())
        assert "Nothing was started" in output


def test_unknown_space_and_data(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--space", "wd_gird"]) == 2
    assert "did you mean 'wd_grid'" in capsys.readouterr().err
    assert main(["--space", "wd_grid", "--data", "figurse", "--weights", "imagenet"]) == 2
    assert "did you mean 'figures'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_parse_raises_for_other_callers():
    with pytest.raises(UserError, match="did you mean --seeds"):
        parse(["--space", "s", "--sedes", "1"])


def test_a_new_study_takes_flags_then_defaults():
    flags = parse(["--space", "wd_grid", "--budget", "0.5", "--precision", "bfloat16", "--compile"])
    settings = make_settings(flags, {}, {"name": "wd_grid-figures", "seeds": (0, 1)})
    assert settings == StudySettings(
        name="wd_grid-figures",
        storage="results",
        space="wd_grid",
        seeds=(0, 1),
        budget=0.5,
        numerics=Numerics(precision="bfloat16", compile=True),
    )


def test_a_resumed_study_keeps_what_is_not_given_again():
    flags = parse(
        ["--space", "wd_grid", "--data", "d1", "--seeds", "0,1", "--scheduler", "none", "--compile"]
    )
    begun = json.loads(json.dumps(make_settings(flags, {}, {"name": "x", "seeds": (0,)}).to_dict()))
    again = make_settings(parse(["--resume", "--name", "x", "--budget", "2"]), begun, {"seeds": (0,)})
    assert (again.name, again.space, again.data, again.seeds) == ("x", "wd_grid", "d1", (0, 1))
    assert (again.scheduler, again.budget, again.numerics) == ("none", 2.0, Numerics(compile=True))
    same = make_settings(parse(["--resume", "--name", "wd_grid-d1"]), begun, {})
    assert same.to_dict() == begun


def test_outside_of_the_environment_the_command_says_how_to_run_it():
    run = ROOT / "study" / "run.py"
    done = subprocess.run(
        [sys.executable, "-S", str(run), "--list"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert re.fullmatch(
        r"error: \w+ is not installed for .*; run: uv run python study/run.py …\n", done.stderr
    )
