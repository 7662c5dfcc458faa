"""A search space: what its file states, read and validated before anything starts, and its points."""

import dataclasses
import difflib
import functools
import importlib
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from segstrat.config import REGULARIZERS, TASKS, TrialConfig, parse_field
from segstrat.errors import UserError, unknown_name
from segstrat.scores import Metric
from study.planning.space_files import import_space_file, is_space_file, space_label

if TYPE_CHECKING:
    from segstrat.data.readers.folder import ImageFacts


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """A uniform distribution over `low` to `high`, both included.

    Args:
        log: uniform on a log scale.
        integer: whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def quantile(self, u: float) -> float | int:
        """The value at `u` in [0, 1); floats are rounded to four significant digits."""
        # Each whole number owns an interval of length one, on a log scale too.
        low, high = (self.low, self.high + 1) if self.integer else (self.low, self.high)
        value = math.exp(math.log(low) + u * math.log(high / low)) if self.log else low + u * (high - low)
        return min(int(value), int(self.high)) if self.integer else self.rounded(value)

    def rounded(self, value: float) -> float | int:
        """A drawn value as trials use it."""
        return int(value) if self.integer else float(f"{value:.{DIGITS}g}")

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


DIGITS = 4


SPACES_DIR = Path(__file__).parents[2] / "search_spaces"
NOT_SPACES = {"__init__", "recipes"}
ROLES = ("arm", "treatment", "nuisance", "tuned")
STRATEGIES = ("pretrained", "initialization", "tasks", "model", "backbone")
# What studies compare; the best value of anything else may be chosen for each setting.
NEVER_TUNED = (*REGULARIZERS, *STRATEGIES, "boundary_tolerance")
# Where one of them is set, the other one follows.
SAME_SWITCH = {"pretrained": ("initialization",), "initialization": ("pretrained",)}
# Of axes that `--set` adds; that of all others is `nuisance`.
USUAL_ROLES = {
    "arm": STRATEGIES,
    "treatment": (
        *REGULARIZERS,
        *("augmentation", "loss", "class_weights", "freeze_batch_norm", "epochs_factor"),
    ),
    "tuned": (
        *("learning_rate", "pretrained_lr_factor", "momentum", "optimizer"),
        *("warmup_epochs", "clip_gradient"),
    ),
}
# A study sets these fields itself; in a space they would change nothing.
SET_ELSEWHERE = {
    "seed": "state SEEDS = (0, 1, 2) or give --seeds",
    "data": "give --data",
    "weights": "give --weights",
}
CONFIG_FIELDS = tuple(field.name for field in dataclasses.fields(TrialConfig))
# An axis of this name multiplies the recipe's epochs, which differ between arms.
EPOCHS_FACTOR = "epochs_factor"


@dataclass(frozen=True, kw_only=True)
class Space:
    """A search space as its file states it.

    Args:
        axes: values of each axis, in the file's order.
        on: data protocol -> fields that replace BASE there.
        roles: role of each axis, one of `ROLES`.
        sampled: axes that are drawn from a distribution.
        samples: points that are drawn from `sampled`, the same in every arm.
        search: `grid` (with quasi-random points where axes are sampled) or `tpe` (Optuna, one per arm).
        recipe: `(data, model, pretrained) -> fields`; it also gets the fields of a trial that it has
            parameters for.
        recipe_name: which recipe that is, once it is chosen for the data, see `fit_recipe`.
        keep: which combinations of listed values are trained; all by default.
        claims: whether the claims of the thesis are judged on a user's own images too.
    """

    name: str
    question: str
    doc: str
    source: str
    base: dict[str, Any]
    on: dict[str, dict[str, Any]]
    axes: dict[str, list[Any]]
    roles: dict[str, str]
    metric: Metric
    sampled: dict[str, Distribution]
    samples: int
    search: str
    seeds: tuple[int, ...]
    recipe: Callable[..., dict[str, Any]]
    recipe_name: str = ""
    claims: bool = False
    keep: Callable[[dict[str, Any]], bool] | None = None

    @property
    def grid(self) -> list[dict[str, Any]]:
        """The combinations of the listed values, of which `keep` leaves out some.

        Raises:
            UserError: if `keep` fails, or leaves none.
        """
        pairs = [[(axis, value) for value in values] for axis, values in self.axes.items()]
        points = [dict(point) for point in itertools.product(*pairs)]
        if self.keep is None:
            return points
        try:
            kept = [point for point in points if self.keep(dict(point))]
        except Exception as error:
            raise UserError(f"space {self.name}: keep failed: {type(error).__name__}: {error}") from error
        if not kept:
            raise UserError(f"space {self.name}: keep leaves none of the {len(points)} combinations")
        return kept

    @property
    def size(self) -> int:
        """Trials of one seed."""
        return len(self.grid) * (self.samples if self.sampled else 1)


def space_names() -> list[str]:
    """Names of the spaces in `search_spaces/`."""
    return sorted(path.stem for path in SPACES_DIR.glob("*.py") if path.stem not in NOT_SPACES)


def load_space(name: str, overrides: Sequence[str] = ()) -> Space:
    """Reads and validates the space `search_spaces/<name>.py`, or a file anywhere.

    Args:
        name: of a space, or the path of its file, which ends in `.py`.
        overrides: axes that replace its own, as `--set` gives them, see `with_overrides`.

    Raises:
        UserError: for an unknown space, or one whose axes or roles are invalid.
    """
    if is_space_file(name):
        module = import_space_file(Path(name).absolute())
        return space_from_module(space_label(name), with_overrides(module, overrides))
    if name not in space_names():
        if Path(f"{name}.py").is_file():
            raise UserError(f"unknown space {name!r}: did you mean the file {name}.py?")
        raise unknown_name("space", name, space_names())
    module = importlib.import_module(f"search_spaces.{name}")
    return space_from_module(name, with_overrides(module, overrides))


def with_overrides(module: ModuleType, overrides: Sequence[str]) -> ModuleType:
    """A space's module with other axes, as if its file stated them.

    `weight_decay=0,1e-3` makes an axis of these values, whose role is that of the space, or the usual one;
    `crop_size=64` fixes the field instead.

    Raises:
        UserError: for another form, an unknown field, a value that is not of its type, or a field twice.
    """
    parts = {name: dict(getattr(module, name, {})) for name in ("BASE", "SPACE", "ROLES", "ON")}
    given: list[str] = []
    for text in overrides:
        axis, equals, values = text.partition("=")
        if not equals or not values or axis in given:
            raise UserError(f"--set {text}: expected FIELD=VALUE,VALUE once for each field")
        if axis in SET_ELSEWHERE:
            raise UserError(f"--set {text}: a study sets {axis} itself; {SET_ELSEWHERE[axis]}")
        given.append(axis)
        try:
            parsed = [_override_value(axis, value) for value in values.split(",")]
        except UserError as error:
            raise UserError(f"--set {text}: {error}") from error
        role = parts["ROLES"].pop(axis, usual_role(axis))
        for replaced in (axis, *SAME_SWITCH.get(axis, ())):
            parts["SPACE"].pop(replaced, None)
        for other in SAME_SWITCH.get(axis, ()):
            parts["BASE"].pop(other, None)
            parts["ROLES"].pop(other, None)
        if len(parsed) > 1 or axis == EPOCHS_FACTOR:
            parts["SPACE"][axis], parts["ROLES"][axis] = {"grid_search": parsed}, role
        else:
            parts["BASE"][axis] = parsed[0]
        parts["ON"] = {data: {k: v for k, v in on.items() if k != axis} for data, on in parts["ON"].items()}
    if not given:
        return module
    derived = ModuleType(module.__name__, module.__doc__)
    derived.__dict__.update({**vars(module), **parts})
    return derived


def rehearsal_overrides(space: Space, given: Sequence[str] = ()) -> tuple[str, ...]:
    """`--set` for a rehearsal: two values of each arm and treatment, all of `initialization`, one of others.

    Args:
        given: those that the user gave, which stand.

    Raises:
        UserError: for a space that draws its values.
    """
    if space.sampled:
        raise UserError(
            f"--quick: space {space.name} draws values of {', '.join(space.sampled)}; rehearse a grid, such "
            "as wd_grid"
        )
    stated = {text.partition("=")[0] for text in given}
    found = list(given)
    for axis, values in space.axes.items():
        middle = values[len(values) // 2]
        few = [values[0], middle] if space.roles[axis] in ("arm", "treatment") else [middle]
        few = values if axis == "initialization" else few
        if axis not in stated and len(few) < len(values):
            found.append(f"{axis}={','.join(map(_override_text, few))}")
    return tuple(found)


def _override_text(value: Any) -> str:
    """The inverse of `_override_value`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return "+".join(map(str, value))
    return "none" if value is None else str(value)


def _override_value(axis: str, text: str) -> Any:
    if axis != EPOCHS_FACTOR:
        return parse_field(axis, text.strip())
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{axis}={text}: expected a number") from None


def usual_role(axis: str) -> str:
    """The role of an axis that a space does not have."""
    return next((role for role, axes in USUAL_ROLES.items() if axis in axes), "nuisance")


def space_from_module(name: str, module: ModuleType) -> Space:
    """Validates what a space's module states; see `load_space`."""
    _check_parts(name, module)
    axes, sampled = _read_axes(name, module.SPACE)
    roles = _read_roles(name, module)
    _check_tuned(name, roles)
    _check_search(name, module, roles, axes, sampled)
    from search_spaces import recipes

    return Space(
        name=name,
        question=module.QUESTION,
        doc=module.__doc__ or "",
        source=Path(module.__file__).read_text(encoding="utf-8") if module.__file__ else "",
        base=dict(module.BASE),
        on=dict(getattr(module, "ON", {})),
        axes=axes,
        roles=roles,
        metric=Metric.parse(getattr(module, "METRIC", _default_metric(module.BASE, axes))),
        sampled=sampled,
        samples=getattr(module, "SAMPLES", 1),
        search=getattr(module, "SEARCH", "grid"),
        seeds=tuple(getattr(module, "SEEDS", (0,))),
        recipe=getattr(module, "recipe", recipes.recipe),
        claims=getattr(module, "CLAIMS", False),
        keep=getattr(module, "keep", None),
    )


def fit_recipe(space: Space, data: str, images: "ImageFacts | None") -> Space:
    """The space with its recipe chosen for the images at hand, and the name of that recipe.

    A recipe of the space's own gets `images` and `short_side` if it has parameters of these names.
    """
    from search_spaces import recipes

    facts = {"images": images.train_images, "short_side": images.short_side} if images else {}
    own = space.recipe is not recipes.recipe
    name = f"of {space.name}.py itself" if own else recipes.recipe_name(data, **facts)
    accepted = inspect.signature(space.recipe).parameters
    wanted = {key: value for key, value in facts.items() if key in accepted}
    return dataclasses.replace(space, recipe=functools.partial(space.recipe, **wanted), recipe_name=name)


def _check_parts(name: str, module: ModuleType) -> None:
    """Refuses a space that lacks a part, or whose parts are not of their form."""
    missing = [part for part in ("BASE", "SPACE", "QUESTION") if not hasattr(module, part)]
    if missing:
        raise UserError(
            f"space {name}: {', '.join(missing)} missing; see search_spaces/wd_grid.py for the form"
        )
    parts = {part: getattr(module, part, {}) for part in ("BASE", "SPACE", "ROLES", "ON")}
    if isinstance(parts["ON"], Mapping):
        parts |= {f"ON[{data!r}]": fields for data, fields in parts["ON"].items()}
    for part, fields in parts.items():
        if not isinstance(fields, Mapping):
            raise UserError(
                f"space {name}: {part} is {fields!r}; expected a dict, as in search_spaces/wd_grid.py"
            )
        for key in fields:
            if not isinstance(key, str):
                raise UserError(f"space {name}: {part} names {key!r}; expected the name of a field, as text")
        check_fields(name, part, fields)
    _check_values(name, module)
    metric = getattr(module, "METRIC", "semseg_val_miou")
    if not isinstance(metric, str):
        raise UserError(f"space {name}: METRIC is {metric!r}; expected a name such as semseg_val_miou")
    try:
        Metric.parse(metric)
    except UserError as error:
        raise UserError(f"space {name}: METRIC is {error}") from error


def _check_values(name: str, module: ModuleType) -> None:
    """Refuses seeds, a number of samples and a recipe that are of another type."""
    seeds, samples = getattr(module, "SEEDS", (0,)), getattr(module, "SAMPLES", 1)
    listed = seeds if isinstance(seeds, Sequence) and not isinstance(seeds, str) else ()
    if not listed or not all(type(seed) is int and seed >= 0 for seed in listed):
        example = f"({seeds},)" if type(seeds) is int else "(0, 1, 2)"
        raise UserError(
            f"space {name}: SEEDS is {seeds!r}; expected whole numbers ≥ 0 in parentheses, such as {example}"
        )
    if type(samples) is not int or samples < 1:
        raise UserError(f"space {name}: SAMPLES is {samples!r}; expected a whole number ≥ 1, such as 16")
    claims = getattr(module, "CLAIMS", False)
    if not isinstance(claims, bool):
        raise UserError(f"space {name}: CLAIMS is {claims!r}; expected True or False")
    keep = getattr(module, "keep", None)
    if keep is not None and not callable(keep):
        raise UserError(f"space {name}: keep is {keep!r}; expected a function of a point, a dict, to a bool")
    recipe = getattr(module, "recipe", None)
    if recipe is not None and not callable(recipe):
        raise UserError(
            f"space {name}: recipe is {recipe!r}; expected a function of (data, model, *, pretrained) that "
            "returns a dict of fields, as docs/spaces.md shows"
        )


def _read_axes(name: str, domains: Mapping[str, Any]) -> tuple[dict[str, list[Any]], dict[str, Distribution]]:
    """The listed and the sampled axes of SPACE."""
    axes: dict[str, list[Any]] = {}
    sampled: dict[str, Distribution] = {}
    for axis, domain in domains.items():
        if axis not in CONFIG_FIELDS and axis != EPOCHS_FACTOR:
            near = difflib.get_close_matches(axis, CONFIG_FIELDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"space {name}: axis {axis!r} is not a TrialConfig field{hint}")
        if isinstance(domain, Mapping) and "grid_search" in domain:
            axes[axis] = list(domain["grid_search"])
        elif hasattr(domain, "sample"):
            sampled[axis] = read_distribution(axis, domain)
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
    return axes, sampled


def _read_roles(name: str, module: ModuleType) -> dict[str, str]:
    """The role of each axis; ROLES need not name strategies and regularizers, whose role is clear."""
    given = getattr(module, "ROLES", {})
    known = dict.fromkeys(REGULARIZERS, "treatment") | dict.fromkeys(STRATEGIES, "arm") | given
    for axis in module.SPACE:
        if axis not in known:
            raise UserError(
                f"space {name}: axis {axis!r} has no role; give ROLES an entry for it: one of "
                f"{', '.join(ROLES)}"
            )
        if known[axis] not in ROLES:
            raise UserError(
                f"space {name}: axis {axis!r} has role {known[axis]!r}; expected one of {', '.join(ROLES)}"
            )
    for axis in given:
        if axis not in module.SPACE:
            raise UserError(f"space {name}: ROLES names {axis!r}, which is not an axis of SPACE; remove it")
    return {axis: known[axis] for axis in module.SPACE}


def _default_metric(base: Mapping[str, Any], axes: Mapping[str, list[Any]]) -> str:
    """The score of the first task that is trained."""
    tasks = axes.get("tasks", [base.get("tasks")])[0]
    first = tasks[0] if isinstance(tasks, tuple | list) and tasks else TASKS[0]
    return f"{first}_val_miou"


def _check_search(
    name: str,
    module: ModuleType,
    roles: Mapping[str, str],
    axes: Mapping[str, list[Any]],
    sampled: Mapping[str, Distribution],
) -> None:
    """Refuses a search that does not fit the axes."""
    search = getattr(module, "SEARCH", "grid")
    if search not in ("grid", "tpe"):
        raise UserError(f"space {name}: SEARCH is {search!r}; expected 'grid' or 'tpe'")
    if search == "tpe" and any(roles[axis] != "arm" for axis in axes):
        raise UserError(
            f"space {name}: a search draws every axis that is not an arm; give distributions instead"
        )
    if sampled and not hasattr(module, "SAMPLES"):
        raise UserError(
            f"space {name}: SAMPLES missing; state how many points to draw from the distributions"
        )


def check_fields(name: str, part: str, fields: Iterable[str]) -> None:
    """Refuses fields that a study sets itself.

    Args:
        part: of the space's file, for the message.
    """
    for field in fields:
        if field in SET_ELSEWHERE:
            raise UserError(
                f"space {name}: {part} names {field!r}, which a study sets itself; {SET_ELSEWHERE[field]}"
            )


def _check_tuned(name: str, roles: Mapping[str, str]) -> None:
    """Refuses tuned axes that are part of what is compared."""
    for axis in (axis for axis, role in roles.items() if role == "tuned"):
        if axis in NEVER_TUNED:
            raise UserError(
                f"space {name}: axis {axis!r} is part of what is compared and cannot be tuned; give it "
                "another role"
            )


# With SEARCH = "tpe" so many quasi-random points, the same in every arm, come before Optuna's proposals.
STARTUP_POINTS = 8
# At so many drawn values of the tuned axes the unregularized setting is tried.
REFERENCE_DRAWS = 4


def space_points(space: Space) -> list[dict[str, Any]]:
    """The points of a space that are known before it runs: the grid, times the quasi-random draws."""
    known = min(space.samples, STARTUP_POINTS) if space.search == "tpe" else space.samples
    draws = sampled_points(space.sampled, known, space.roles) if space.sampled else [{}]
    return [point | draw for point in space.grid for draw in draws]


def sampled_points(
    sampled: Mapping[str, Distribution], samples: int, roles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Quasi-random points; where the treatments that are drawn are regularizers, the first is without any.

    Gap closure is measured from the unregularized setting, which a distribution never draws. A tuned axis
    that is drawn, such as the learning rate, has a value of its own in each point: every drawn setting has
    one, the unregularized setting a quarter of the points and at most `REFERENCE_DRAWS`. Where no treatment
    is drawn, every setting of the grid tries the same drawn values.
    """
    tuned = {axis: drawn for axis, drawn in sampled.items() if roles.get(axis) == "tuned"}
    treatments = set(sampled) - set(tuned)
    if (tuned and not treatments) or not treatments <= set(REGULARIZERS):
        return quasi_random(sampled, samples)
    rates = quasi_random(tuned, min(REFERENCE_DRAWS, max(1, samples // 4))) if tuned else [{}]
    references = [{axis: rate.get(axis, 0.0) for axis in sampled} for rate in rates]
    return [*references, *quasi_random(sampled, samples - len(references))]


def quasi_random(sampled: Mapping[str, Distribution], samples: int) -> list[dict[str, Any]]:
    """Points of a scrambled Sobol sequence.

    The same points are used for every arm and seed, so that a map's cells stay paired.
    """
    from scipy.stats import qmc

    power = math.ceil(math.log2(max(samples, 1)))
    unit = qmc.Sobol(len(sampled), scramble=True, rng=0).random_base2(power)
    return [
        {axis: drawn.quantile(u) for (axis, drawn), u in zip(sampled.items(), row, strict=True)}
        for row in unit[:samples].tolist()
    ]


# Ray Tune's domain and sampler -> (log scale, whole numbers). A space file imports Ray; planning does not.
KINDS = {
    ("Float", "_Uniform"): (False, False),
    ("Float", "_LogUniform"): (True, False),
    ("Integer", "_Uniform"): (False, True),
    ("Integer", "_LogUniform"): (True, True),
}


def read_distribution(axis: str, domain: Any) -> Distribution:
    """The `Distribution` of one of Ray Tune's domains.

    Raises:
        UserError: for a domain other than uniform, loguniform, randint and lograndint.
    """
    kind = type(domain).__name__, type(getattr(domain, "sampler", None)).__name__
    if kind[0] == "Categorical":
        raise UserError(
            f"axis {axis!r} is a tune.choice, which draws values at random; list the values that are "
            f"compared, tune.grid_search({list(domain.categories)!r})"
        )
    if kind not in KINDS:
        raise UserError(
            f"axis {axis!r}: expected tune.uniform, tune.loguniform, tune.randint or tune.lograndint, "
            f"not {domain!r}"
        )
    log, integer = KINDS[kind]
    # Ray excludes the upper bound of whole numbers.
    high = domain.upper - 1 if integer else domain.upper
    if high < domain.lower:
        raise UserError(
            f"axis {axis!r} is drawn from {domain.lower!r} to {domain.upper!r}; give the smaller bound first"
        )
    return Distribution(low=domain.lower, high=high, log=log, integer=integer)
