"""Which figures a study's report shows. Each figure is a `…_table` and a `draw_…` of that table."""

from dataclasses import dataclass

from study.analysis import Answer
from study.reporting.picture import Picture
from study.reporting.plot_classes import class_picture
from study.reporting.plot_closure import closure_picture
from study.reporting.plot_contrasts import answer_picture, contexts_picture
from study.reporting.plot_cost import cost_picture
from study.reporting.plot_curves import curves_picture
from study.reporting.plot_effects import effects_picture
from study.reporting.plot_map import map_pictures
from study.reporting.plot_overfitting import plane_picture
from study.reporting.plot_sampled import sampled_picture
from study.reporting.plot_surface import surface_picture
from study.reporting.plot_treatment import treatment_picture


@dataclass(frozen=True)
class Pictures:
    """The figures of a report, by section; a section without anything to show is empty."""

    answer: list[Picture]
    effects: list[Picture]
    treatments: list[Picture]
    training: list[Picture]
    classes: list[Picture]
    cost: list[Picture]

    def all(self) -> list[Picture]:
        """Every figure once."""
        return [*self.answer, *self.effects, *self.treatments, *self.training, *self.classes, *self.cost]


def draw_pictures(answer: Answer) -> Pictures:
    """Draws every figure that the study's frames allow."""
    study = answer.study
    verdicts = answer.contexts
    treatments = study.axes("treatment")
    tasks = list(answer.verdicts)
    return Pictures(
        answer=_known(
            *(answer_picture(answer, verdict) for verdict in answer.primary[:1]),
            contexts_picture(answer),
            *(closure_picture(answer, verdict) for verdict in verdicts),
        ),
        effects=_known(
            *(effects_picture(effects, study.data_name) for effects in answer.sections["factorial_effects"]),
            *(
                surface_picture(surfaces, study.data_name)
                for surfaces in answer.sections["response_surfaces"]
            ),
        ),
        treatments=_known(
            *(treatment_picture(study, axis, task) for task in tasks for axis in treatments),
            *(picture for task in tasks for picture in map_pictures(study, task)),
            *(sampled_picture(study, task) for task in tasks),
        ),
        training=_known(
            *(curves_picture(study, verdict) for verdict in verdicts),
            *(plane_picture(study, task) for task in tasks),
        ),
        classes=_known(*(class_picture(study, verdict) for verdict in verdicts)),
        cost=_known(cost_picture(answer)),
    )


def _known(*pictures: Picture | None) -> list[Picture]:
    return [picture for picture in pictures if picture is not None]
