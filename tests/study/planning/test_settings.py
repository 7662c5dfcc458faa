"""Settings of a study: flags over what it was started with over defaults, and back from the manifest."""

import json

from segstrat.config import Numerics
from study.cli import parse
from study.planning.settings import StudySettings, make_settings


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
