"""Search spaces as files anywhere on disk: found, imported, and copied to the workers of a cluster."""

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
    except Exception as error:
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


def _line_in(path: Path, error: Exception) -> str:
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
