"""Planned trials: the points of a space as configs, validated and ordered before anything starts."""

import dataclasses
import functools
import inspect
import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces import recipes
from segstrat.config import GIVEN, REGULARIZERS, SELF, TIMM_PREFIX, TrialConfig
from segstrat.errors import UserError, listed
from segstrat.formatting import format_value
from segstrat.records import Stage
from segstrat.scores import BOUNDARY, BOUNDARY_TOLERANCE
from study.frame.build import ARM_FIELDS, DEFAULTS, START_WORDS, cell_of, setting_of, untreated_value
from study.planning.space import EPOCHS_FACTOR, Space, check_fields, space_points

# Stands for the weights' path in trials that are planned before the weights are made.
TO_BE_MADE = "to be pre-trained"


@dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """One trial before it runs.

    Args:
        trial_id: digest of the config; the name of the trial's folder.
        order: position in the study's shuffled order; early stopping decides by it.
        arm: label of the trial's values on the arm axes.
        axes: what the space and the seeds vary.
        context: the trial's values on the nuisance axes, '' without such axes.
        reference: whether this is the reference, see `is_reference`.
        stage: `screening` trials only nominate candidates; `answering` trials enter the verdict.
        exempt: whether its rank may not stop it early, as where screening saves seeds instead of epochs; a
            trial that trails by far is stopped all the same.
        tuned: axes whose best value is chosen for each setting.
    """

    trial_id: str
    order: int
    arm: str
    axes: dict[str, Any]
    config: TrialConfig
    context: str = ""
    reference: bool = False
    stage: Stage = Stage.ANSWERING
    exempt: bool = False
    tuned: tuple[str, ...] = ()

    @property
    def cell(self) -> str:
        """Arm, treatments, nuisance and tuned values, exact: what the seed replicates."""
        return cell_of(self._identity, self.tuned)

    @property
    def setting(self) -> str:
        """The cell without its tuned values, which are chosen for each setting."""
        return setting_of(self._identity, self.tuned)

    @property
    def _identity(self) -> dict[str, Any]:
        config = {"tasks": self.config.tasks, "backbone": self.config.backbone}
        return {"arm": self.arm, "axes": self.axes, "config": config}

    @property
    def label(self) -> str:
        """A descriptive one-line name: the arm, then every other axis."""
        rest = [
            f"{name}={format_value(value)}" for name, value in self.axes.items() if name not in ARM_FIELDS
        ]
        return " ".join([self.arm, *rest])

    @property
    def group(self) -> tuple[Any, ...]:
        """Trials compete with each other only if these agree: context, arm and seed."""
        config = self.config
        return self.context, config.tasks, config.model, config.backbone, self.arm, config.seed

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as stored in the manifest."""
        axes = {name: list(value) if isinstance(value, tuple) else value for name, value in self.axes.items()}
        return {
            "trial_id": self.trial_id,
            "order": self.order,
            "arm": self.arm,
            "axes": axes,
            "context": self.context,
            "reference": self.reference,
            "stage": self.stage,
            "exempt": self.exempt,
            "tuned": list(self.tuned),
            "config": self.config.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PlannedTrial":
        """The inverse of `to_dict`."""
        given = {
            "config": TrialConfig.from_dict(values["config"]),
            "stage": Stage(values.get("stage", Stage.ANSWERING)),
            "tuned": tuple(values.get("tuned", ())),
        }
        return cls(**{**values, **given})


def plan(
    space: Space,
    data: str,
    *,
    seeds: Sequence[int] = (0,),
    budget: float = 1.0,
    weights: str | None = None,
    cells: Sequence[Mapping[str, Any]] | None = None,
) -> list[PlannedTrial]:
    """All trials of a study, validated, in the order in which they start.

    Args:
        data: name of the data protocol.
        seeds: each cell is trained once per seed.
        budget: factor on every trial's epochs (at least one epoch stays).
        weights: source of the weights that are given, see `TrialConfig.initialization`.
        cells: only these points of the space, as axis -> value; default: all.

    Raises:
        UserError: for a value that `TrialConfig` refuses, naming the trial.
    """
    seeds = check_seeds(seeds)
    settings = space_points(space) if cells is None else cells
    trials = [
        planned_trial(space, data, axes, seed=seed, budget=budget, weights=weights)
        for seed, axes in itertools.product(seeds, settings)
    ]
    _refuse_twins(space, trials)
    # Early trials are judged against fewer values at a rung; a shuffled order favors no cell. Seed by seed,
    # a study that is interrupted has complete seeds to compare.
    random.Random(0).shuffle(trials)
    trials.sort(key=lambda trial: trial.config.seed)
    return [dataclasses.replace(trial, order=order) for order, trial in enumerate(trials)]


def planned_trial(
    space: Space, data: str, axes: Mapping[str, Any], *, seed: int, budget: float, weights: str | None
) -> PlannedTrial:
    """One point of a space as a trial, without its position in the study's order."""
    config = make_config(space, data, axes, seed=seed, budget=budget, weights=weights)
    nuisance = {axis: axes[axis] for axis, role in space.roles.items() if role == "nuisance" and axis in axes}
    return PlannedTrial(
        trial_id=config.digest(),
        order=0,
        arm=arm_label(axes, space.roles, config),
        axes=dict(axes) | {"seed": seed},
        config=config,
        context=", ".join(f"{axis}={format_value(value)}" for axis, value in nuisance.items()),
        reference=is_reference(space, axes, config),
        tuned=tuple(axis for axis in axes if space.roles.get(axis) == "tuned"),
    )


def is_reference(space: Space, axes: Mapping[str, Any], config: TrialConfig) -> bool:
    """Whether a point is the reference: raw (trained from scratch), single-task, without regularization.

    Every treatment has its `untreated_value`. With a tuned axis there is a reference at each of its values,
    of which the best one counts.
    """
    if config.pretrained or config.multi_task:
        return False
    for axis in (axis for axis, role in space.roles.items() if role == "treatment" and axis in axes):
        if axis not in space.axes and axis not in REGULARIZERS:
            return False
        if axes[axis] != untreated_value(axis, space.axes.get(axis, ())):
            return False
    return True


def make_config(
    space: Space, data: str, axes: Mapping[str, Any], *, seed: int, budget: float, weights: str | None
) -> TrialConfig:
    """The config of one point of a space: the recipe of the data and arm, over it BASE, then the axes."""
    if not 0 < budget < float("inf"):
        raise UserError(f"--budget {budget}: expected a number > 0; 1 is the space's own recipe")
    fields = space.base | space.on.get(data, {})
    fields |= {name: value for name, value in axes.items() if name != EPOCHS_FACTOR}
    if len(fields.get("tasks", ())) == 1 and "asynchronous" not in axes:
        # Only several tasks can update asynchronously; a single one is trained by plain SGD (thesis E3-E6).
        fields.pop("asynchronous", None)
    initialization = fields.get("initialization")
    pretrained = bool(fields.get("pretrained", initialization in (SELF, GIVEN)))
    asked = {name: fields.get(name, DEFAULTS[name]) for name in _asked_for(space.recipe)}
    recipe = space.recipe(data, fields.get("model", "fcn32s"), pretrained=pretrained, **asked)
    if not isinstance(recipe, Mapping):
        raise UserError(
            f"space {space.name}: recipe returned {recipe!r}; it must return a dict of fields, such as "
            '{"epochs": 50, "crop_size": 256}'
        )
    check_fields(space.name, "recipe", recipe)
    shared = getattr(space.recipe, "func", space.recipe) is recipes.recipe
    if shared and str(fields.get("backbone")).startswith(TIMM_PREFIX):
        # These have one width; that of the shared recipe is for the project's own networks.
        recipe = {name: value for name, value in recipe.items() if name != "width"}
    fields = dict(recipe) | fields | {"data": data, "seed": seed}
    if type(fields.get("epochs")) is not int or fields["epochs"] < 1:
        raise UserError(
            f"space {space.name}: epochs is {fields.get('epochs')!r}; expected a whole number of at least 1"
        )
    whole = fields["epochs"]
    fields["epochs"] = max(1, round(whole * budget * axes.get(EPOCHS_FACTOR, 1)))
    if isinstance(fields.get("warmup_epochs"), int | float) and fields["epochs"] != whole:
        # The schedule keeps its shape.
        fields["warmup_epochs"] *= fields["epochs"] / whole
    made_here = TO_BE_MADE if initialization == SELF else weights
    fields["weights"] = made_here if pretrained else None
    if space.metric.score == BOUNDARY and not fields.setdefault("boundary_tolerance", BOUNDARY_TOLERANCE):
        raise UserError(
            f"space {space.name}: boundary_tolerance is 0, so that {space.metric.name}, its METRIC, is not "
            f"counted; leave it out ({BOUNDARY_TOLERANCE} of the diagonal), or give another share"
        )
    try:
        return TrialConfig.from_dict(fields)
    except UserError as error:
        values = ", ".join(f"{name}={value!r}" for name, value in axes.items())
        raise UserError(f"space {space.name}, trial ({values}): {error}") from error


@functools.lru_cache(maxsize=16)
def _asked_for(recipe: Callable[..., Any]) -> list[str]:
    """Fields of a trial that a recipe has parameters for, such as the label fraction."""
    names = inspect.signature(recipe).parameters
    return [name for name in names if name in DEFAULTS and name not in ("data", "model", "pretrained")]


def check_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """The seeds, each once and at least one."""
    seeds = tuple(seeds)
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0 or max(seeds) >= 2**63:
        raise UserError(
            f"seeds [{listed(seeds, 12)}]: expected different whole numbers from 0 to 2⁶³ − 1, such as 0,1,2"
        )
    return seeds


def arm_label(axes: Mapping[str, Any], roles: Mapping[str, str], config: TrialConfig) -> str:
    """Reads a trial's arm: backbone (where varied), what it starts from, tasks (where varied)."""
    varied = {axis for axis, role in roles.items() if role == "arm"}
    words = []
    if varied & {"backbone", "model"}:
        words.append(config.backbone or config.model)
    words.append(START_WORDS[config.start])
    if "tasks" in varied:
        words.append("multi-task" if config.multi_task else config.tasks[0])
    words += [f"{axis}={axes[axis]}" for axis in sorted(varied - set(ARM_FIELDS)) if axis in axes]
    return ", ".join(words)


def _refuse_twins(space: Space, trials: Sequence[PlannedTrial]) -> None:
    seen: dict[str, PlannedTrial] = {}
    for trial in trials:
        if (twin := seen.get(trial.trial_id)) is not None:
            raise UserError(
                f"space {space.name}: {trial.axes} and {twin.axes} are the same training run; an axis has no "
                "effect there or lists a value twice"
            )
        seen[trial.trial_id] = trial
