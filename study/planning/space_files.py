"""Search spaces as files anywhere on disk: found, imported, copied to workers; their template."""

import importlib.util
import shutil
import sys
import traceback
from pathlib import Path
from types import ModuleType

from segstrat.errors import UserError

# The package under which a space's folder reaches the nodes of a cluster.
SHIPPED = "segstrat_space_files"


def is_space_file(space: str) -> bool:
    """Whether `--space` is given a file and not the name of a space in `search_spaces/`."""
    return space.endswith(".py")


def space_file(space: str) -> Path | None:
    """The file of a space that is given by one."""
    return Path(space) if is_space_file(space) else None


def space_label(space: str) -> str:
    """The name of a space, also of one that is given by its file; part of the study's default name."""
    return Path(space).stem if is_space_file(space) else space


def import_space_file(path: Path) -> ModuleType:
    """Imports a space's file; modules next to it can be imported by it.

    Raises:
        UserError: if there is no such file, or where its code fails, with the line.
    """
    if not path.is_file():
        raise UserError(
            f"--space {path}: there is no such file; `--new-space {path.stem}` writes a template of one"
        )
    if not path.stem.isidentifier():
        raise UserError(f"--space {path}: the file's name must be letters, digits and '_', as in my_space.py")
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    name = f"segstrat_space_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"--space {path}{_line_in(path, error)}: {type(error).__name__}: {error}") from error
    return module


def ship_space_folder(path: Path, target: Path) -> Path:
    """Copies the Python files next to a space into a package that Ray can send to the nodes of a cluster.

    Modules of the folder and packages in it travel; its other files, such as images, do not.

    Returns:
        the package's folder in `target`.
    """
    package = target / SHIPPED
    package.mkdir()
    (package / "__init__.py").touch()
    for source in path.parent.iterdir():
        if source.suffix == ".py" and source.is_file():
            shutil.copy2(source, package / source.name)
        elif (source / "__init__.py").is_file():
            shutil.copytree(source, package / source.name, ignore=_not_python)
    return package


def import_on_worker(space: str) -> None:
    """Imports a space's file in a worker, for what else it defines; the trials come with their settings."""
    path = Path(space)
    if not path.is_file():
        try:
            package = importlib.import_module(SHIPPED)
        except ImportError:
            raise UserError(f"the space's file {space} is not on this node") from None
        assert package.__file__ is not None
        path = Path(package.__file__).parent / path.name
    if f"segstrat_space_{path.stem}" not in sys.modules:
        import_space_file(path)


def _line_in(path: Path, error: BaseException) -> str:
    """`, line N` where an error arose in a file, '' where it arose elsewhere."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    return f", line {lines[-1]}" if lines else ""


def _not_python(folder: str, names: list[str]) -> list[str]:
    return [
        name
        for name in names
        if name == "__pycache__" or not (name.endswith(".py") or (Path(folder) / name).is_dir())
    ]


TEMPLATE = '''"""Does weight decay close the gap between raw and pre-trained on my data?        (the question)

What you expect and why; what each axis is for.

Command: uv run python study/run.py --space {file} --data folder --data-root DIR --weights imagenet
Trials: 6 per seed.
"""

from ray import tune

# Shown by the console and the report.
QUESTION = "Does weight decay close the gap between raw and pre-trained on my data?"

# What is the same in all trials: fields of segstrat.config.TrialConfig, which docs/spaces.md lists with their
# defaults. Epochs, crop size, batch size and learning rates come from a recipe unless they are set here.
BASE = {{
    "model": "fcn8s",  # fcn32s, fcn16s and fcn8s take any backbone; sunet64 is its own
    "backbone": "resnet18",
    "tasks": ("semseg",),
}}

# What replaces BASE on some data; optional.
ON = {{
    "figures": {{"width": 0.25}},
}}

# The axes. Every combination is trained once per seed.
SPACE = {{
    "pretrained": tune.grid_search([False, True]),
    "weight_decay": tune.grid_search([0.0, 5e-4, 5e-3]),
    # Drawn instead of listed (then state SAMPLES, the number of points):
    # "dropout": tune.uniform(0.0, 0.6),
}}

# What an axis is for. Strategies such as `pretrained` are arms and regularizers are treatments; any other
# axis needs a role: `treatment`, `nuisance` (each value is a comparison of its own) or `tuned` (such as the
# learning rate: its best value is chosen for each setting).
# ROLES = {{"batch_size": "nuisance"}}

# The score by which trials are judged; by default the validation mIoU of the first task. Others are
# <task>_val_dice, <task>_val_foreground_miou, <task>_val_boundary_f1, and <task>_val_iou_<class> for that
# of one class.
# METRIC = "semseg_val_miou"

# Seeds of the screening, which nominates candidates; optional. The answer comes from fresh seeds, which the
# study adds until the question is settled. A study of one stage trains every cell once per seed: one or two
# seeds are too few for an interval; use at least three. --seeds overrides it.
# SEEDS = (0, 1)


# A recipe of your own; optional, and then no other is used. It may depend on the arm, as here the learning
# rate does. Fields of BASE and SPACE override it.
# def recipe(data, model, *, pretrained):
#     rate = 0.01 if pretrained else 0.02
#     return {{"epochs": 60, "crop_size": 256, "batch_size": 8, "learning_rate": rate}}
'''


def write_template(name: str) -> Path:
    """Writes a search space to start from; returns its file.

    Args:
        name: of the space or its file; without a folder it goes into the working directory.

    Raises:
        UserError: if there is such a file already, or it cannot be written.
    """
    path = Path(name if is_space_file(name) else f"{name}.py").expanduser()
    if not path.stem.isidentifier():
        raise UserError(f"--new-space {name}: give a name of letters, digits and '_', such as my_space")
    if path.exists():
        raise UserError(f"--new-space {name}: {path} exists already; choose another name")
    try:
        path.write_text(TEMPLATE.format(file=path), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"--new-space {name}: {path} cannot be written ({error.strerror or error})"
        ) from error
    return path
