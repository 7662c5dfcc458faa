"""One definition of the reference, and trials are compared at it."""

from study.analysis.answer import answer_study
from study.analysis.cells import cell_table
from study.analysis.sections.thesis_numbers import comparison
from study.analysis.study import Study
from study.frame import write_frames
from study.reporting.plot_contrasts import seed_table
from study.reporting.plot_treatments import treatment_table


def opened(folder):
    write_frames(folder)
    return Study.open(folder)


def entry(make_trial, decay, seed, value, *, pretrained=False, **more):
    axes = {"pretrained": pretrained, "weight_decay": decay, "seed": seed}
    return make_trial(axes, value, **more)


def test_the_reference_is_the_same_for_verdict_cells_and_figures(study_writer, make_trial):
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
        assert (found.primary[0].contrasts.reference is not None) is has_reference
        assert cell_table(study, "semseg")["reference"].any() == has_reference
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
