"""From a search space to the trials of a study: expanded, validated and ordered before anything starts."""

import ast
import dataclasses
import difflib
import importlib
import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from segstrat.config import REGULARIZERS, TrialConfig
from segstrat.errors import UserError, unknown_name

SPACES_DIR = Path(__file__).parents[1] / "search_spaces"
NOT_SPACES = {"__init__", "recipes"}
ROLES = ("arm", "treatment", "nuisance", "seed")
CONFIG_FIELDS = tuple(field.name for field in dataclasses.fields(TrialConfig))
# An axis of this name multiplies the recipe's epochs, which differ between arms.
SCHEDULE = "schedule"
# With SEARCH = "tpe" so many quasi-random points, the same in every arm, come before Optuna's proposals.
STARTUP_POINTS = 8


@dataclass(frozen=True, kw_only=True)
class Space:
    """A search space as its file states it.

    Args:
        axes: values of each axis, in the file's order.
        on: data protocol -> fields that replace BASE there.
        roles: role of each axis, one of `ROLES`.
        sampled: axes that are drawn from a distribution, as Ray Tune domains.
        samples: points that are drawn from `sampled`, the same in every arm.
        search: `grid` (with quasi-random points where axes are sampled) or `tpe` (Optuna, one per arm).
        recipe: `(data, model, pretrained) -> fields`.
    """

    name: str
    question: str
    doc: str
    source: str
    base: dict[str, Any]
    on: dict[str, dict[str, Any]]
    axes: dict[str, list[Any]]
    roles: dict[str, str]
    metric: str
    sampled: dict[str, Any]
    samples: int
    search: str
    seeds: tuple[int, ...]
    recipe: Callable[..., dict[str, Any]]

    @property
    def size(self) -> int:
        """Trials of one seed."""
        grid = 1
        for values in self.axes.values():
            grid *= len(values)
        return grid * (self.samples if self.sampled else 1)


@dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """One trial before it runs.

    Args:
        trial_id: digest of the config; the name of the trial's folder.
        order: place in the study's shuffled order; schedulers decide by it.
        arm: label of the trial's values on the arm axes.
        axes: what the space and the seeds vary.
    """

    trial_id: str
    order: int
    arm: str
    axes: dict[str, Any]
    config: TrialConfig

    @property
    def label(self) -> str:
        """A telling one-line name: the arm, then every other axis."""
        rest = [f"{name}={_short(value)}" for name, value in self.axes.items() if name not in ARM_FIELDS]
        return " ".join([self.arm, *rest])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the manifest holds them."""
        axes = {name: list(value) if isinstance(value, tuple) else value for name, value in self.axes.items()}
        return {
            "trial_id": self.trial_id,
            "order": self.order,
            "arm": self.arm,
            "axes": axes,
            "config": self.config.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PlannedTrial":
        """The inverse of `to_dict`."""
        return cls(**{**values, "config": TrialConfig.from_dict(values["config"])})


ARM_FIELDS = ("pretrained", "tasks", "backbone", "model")


def space_names() -> list[str]:
    """Names of the spaces in `search_spaces/`."""
    return sorted(path.stem for path in SPACES_DIR.glob("*.py") if path.stem not in NOT_SPACES)


def space_question(name: str) -> str:
    """First line of a space's docstring, read without importing it."""
    doc = ast.get_docstring(ast.parse((SPACES_DIR / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return doc.partition("\n")[0]


def load_space(name: str) -> Space:
    """Reads and validates the space `search_spaces/<name>.py`.

    Raises:
        UserError: for an unknown space, or one whose axes or roles are not sound.
    """
    if name not in space_names():
        raise unknown_name("space", name, space_names())
    return space_from_module(name, importlib.import_module(f"search_spaces.{name}"))


def space_from_module(name: str, module: ModuleType) -> Space:
    """Validates what a space's module states; see `load_space`."""
    missing = [part for part in ("BASE", "SPACE", "ROLES", "METRIC", "QUESTION") if not hasattr(module, part)]
    if missing:
        raise UserError(
            f"space {name}: {', '.join(missing)} missing; see search_spaces/wd_grid.py for the form"
        )
    axes, sampled = {}, {}
    for axis, domain in module.SPACE.items():
        if axis not in CONFIG_FIELDS and axis != SCHEDULE:
            near = difflib.get_close_matches(axis, CONFIG_FIELDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"space {name}: axis {axis!r} is no TrialConfig field{hint}")
        if isinstance(domain, Mapping) and "grid_search" in domain:
            axes[axis] = list(domain["grid_search"])
        elif hasattr(domain, "sample"):
            sampled[axis] = domain
        else:
            raise UserError(
                f"space {name}: axis {axis!r} is {domain!r}; expected tune.grid_search([...]) or a tune "
                "distribution; a fixed value belongs in BASE"
            )
    for axis, values in axes.items():
        if not values:
            raise UserError(f"space {name}: axis {axis!r} has no values; give tune.grid_search at least one")
        repeated = [value for i, value in enumerate(values) if value in values[:i]]
        if repeated:
            raise UserError(f"space {name}: axis {axis!r} lists {repeated[0]!r} twice; remove one")
    for axis in module.SPACE:
        role = module.ROLES.get(axis)
        if role not in ROLES:
            raise UserError(
                f"space {name}: axis {axis!r} has role {role!r}; expected one of {', '.join(ROLES)}"
            )
    for axis in module.ROLES:
        if axis not in module.SPACE:
            raise UserError(f"space {name}: ROLES names {axis!r}, which is no axis of SPACE; remove it")
    if getattr(module, "SEARCH", "grid") not in ("grid", "tpe"):
        raise UserError(f"space {name}: SEARCH is {module.SEARCH!r}; expected 'grid' or 'tpe'")
    if getattr(module, "SEARCH", "grid") == "tpe" and any(module.ROLES[axis] != "arm" for axis in axes):
        raise UserError(f"space {name}: a search draws every axis that is no arm; give distributions instead")
    if sampled and not hasattr(module, "SAMPLES"):
        raise UserError(f"space {name}: SAMPLES missing; say how many points to draw from the distributions")
    from search_spaces import recipes

    return Space(
        name=name,
        question=module.QUESTION,
        doc=module.__doc__ or "",
        source=Path(module.__file__).read_text(encoding="utf-8") if module.__file__ else "",
        base=dict(module.BASE),
        on=dict(getattr(module, "ON", {})),
        axes=axes,
        roles=dict(module.ROLES),
        metric=module.METRIC,
        sampled=sampled,
        samples=getattr(module, "SAMPLES", 1),
        search=getattr(module, "SEARCH", "grid"),
        seeds=tuple(getattr(module, "SEEDS", (0,))),
        recipe=getattr(module, "recipe", recipes.recipe),
    )


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
        weights: source of the pre-trained arm's weights.
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
    # Early arrivals at a rung are judged against fewer values; a shuffled order favours no cell.
    random.Random(0).shuffle(trials)
    return [dataclasses.replace(trial, order=order) for order, trial in enumerate(trials)]


def space_points(space: Space) -> list[dict[str, Any]]:
    """The points of a space that are known before it runs: the grid, times the quasi-random draws."""
    grid = itertools.product(*([(axis, value) for value in values] for axis, values in space.axes.items()))
    known = min(space.samples, STARTUP_POINTS) if space.search == "tpe" else space.samples
    draws = sampled_points(space.sampled, known) if space.sampled else [{}]
    return [dict(point) | draw for point in grid for draw in draws]


def planned_trial(
    space: Space, data: str, axes: Mapping[str, Any], *, seed: int, budget: float, weights: str | None
) -> PlannedTrial:
    """One point of a space as a trial, without its place in the study's order."""
    config = make_config(space, data, axes, seed=seed, budget=budget, weights=weights)
    arm = arm_label(axes, space.roles, config)
    return PlannedTrial(
        trial_id=config.digest(), order=0, arm=arm, axes=dict(axes) | {"seed": seed}, config=config
    )


def make_config(
    space: Space, data: str, axes: Mapping[str, Any], *, seed: int, budget: float, weights: str | None
) -> TrialConfig:
    """The config of one point of a space: BASE, then the recipe of the data and arm, then the axes."""
    if not 0 < budget < float("inf"):
        raise UserError(f"--budget {budget}: expected a number > 0; 1 is the space's own recipe")
    fields = space.base | space.on.get(data, {})
    fields |= {name: value for name, value in axes.items() if name != SCHEDULE}
    pretrained = bool(fields.get("pretrained", False))
    recipe = space.recipe(data, fields.get("model", "fcn32s"), pretrained=pretrained)
    fields = recipe | fields | {"data": data, "seed": seed}
    fields["epochs"] = max(1, round(fields["epochs"] * budget * axes.get(SCHEDULE, 1)))
    fields["weights"] = weights if pretrained else None
    try:
        return TrialConfig.from_dict(fields)
    except UserError as error:
        values = ", ".join(f"{name}={value!r}" for name, value in axes.items())
        raise UserError(f"space {space.name}, trial ({values}): {error}") from error


def check_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """The seeds, each once and at least one."""
    seeds = tuple(seeds)
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise UserError(f"seeds {list(seeds)}: expected different whole numbers ≥ 0, such as 0,1,2")
    return seeds


def arm_label(axes: Mapping[str, Any], roles: Mapping[str, str], config: TrialConfig) -> str:
    """Reads a trial's arm: backbone (where varied), raw or pre-trained, tasks (where varied)."""
    varied = {axis for axis, role in roles.items() if role == "arm"}
    words = []
    if varied & {"backbone", "model"}:
        words.append(config.backbone or config.model)
    words.append("pre-trained" if config.pretrained else "raw")
    if "tasks" in varied:
        words.append("joint" if config.multi_task else config.tasks[0])
    words += [f"{axis}={axes[axis]}" for axis in sorted(varied - set(ARM_FIELDS)) if axis in axes]
    return ", ".join(words)


def sampled_points(sampled: Mapping[str, Any], samples: int) -> list[dict[str, Any]]:
    """Quasi-random points; where only regularizers are drawn, the first point is that without any.

    Gap closure is measured from the unregularized setting, which a distribution never draws.
    """
    if set(sampled) <= set(REGULARIZERS):
        return [dict.fromkeys(sampled, 0.0), *quasi_random(sampled, samples - 1)]
    return quasi_random(sampled, samples)


def quasi_random(sampled: Mapping[str, Any], samples: int, seed: int = 0) -> list[dict[str, Any]]:
    """Points of a scrambled Sobol sequence over Ray Tune's float distributions (uniform, loguniform).

    The same points serve every arm and seed, so that a map's cells stay paired.
    """
    import math

    from ray.tune.search.sample import Float, LogUniform
    from scipy.stats import qmc

    for axis, domain in sampled.items():
        if not isinstance(domain, Float):
            raise UserError(
                f"axis {axis!r}: only tune.uniform and tune.loguniform can be drawn, not {domain!r}"
            )
    unit = qmc.Sobol(len(sampled), scramble=True, rng=seed).random_base2(
        math.ceil(math.log2(max(samples, 1)))
    )
    points = []
    for row in unit[:samples]:
        point = {}
        for (axis, domain), u in zip(sampled.items(), row, strict=True):
            low, high = domain.lower, domain.upper
            log = isinstance(domain.sampler, LogUniform)
            value = math.exp(math.log(low) + u * math.log(high / low)) if log else low + u * (high - low)
            point[axis] = float(f"{value:.4g}")
        points.append(point)
    return points


def _refuse_twins(space: Space, trials: Sequence[PlannedTrial]) -> None:
    seen: dict[str, PlannedTrial] = {}
    for trial in trials:
        if (twin := seen.get(trial.trial_id)) is not None:
            raise UserError(
                f"space {space.name}: {trial.axes} and {twin.axes} are the same training run; an axis has no "
                "effect there or lists a value twice"
            )
        seen[trial.trial_id] = trial


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "+".join(value) if isinstance(value, tuple | list) else str(value)
