"""The direction of imports: the library is free of Ray, the analysis of torch, and nothing runs in a circle.

Every import counts, those inside functions too.
"""

import ast
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Units of study/ (packages, and modules of its root), lowest first; each imports only from earlier lines.
LEVELS = (
    {"cli", "frame"},
    {"planning", "pretrain", "analysis"},
    {"state", "reporting"},
    {"search", "report"},
    {"on_ray", "console", "predict"},
    {"driver"},
    {"run"},
)
RAY_ONLY_IN = "on_ray"
# Load neither torch nor Ray.
LIGHT = ("planning", "state", "search", "console", "analysis", "reporting", "frame", "report", "cli")
MOST_ROOT_FILES = 7


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in ("study", "segstrat") for path in sources(package)}
STUDY = [name for name in MODULES if name.startswith("study")]


def unit(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@cache
def imported(path: Path) -> frozenset[str]:
    """Names that a file imports: modules, and `module.name` for what it takes from one."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def imports_of(module: str) -> set[str]:
    """The project's modules that a module imports; a package counts only if a name comes from itself."""
    names = imported(MODULES[module])
    found = {name for name in names if name in MODULES and name != module}
    through = {name.rpartition(".")[0] for name in found}
    own_names = {name.rpartition(".")[0] for name in names if name not in MODULES}
    return {name for name in found if name not in through or name in own_names}


def find_circle(imports: dict[str, set[str]]) -> list[str]:
    """Modules of which each imports the next, the last being the first again; empty if there are none."""
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> list[str]:
        if module in above:
            return [*above[above.index(module) :], module]
        if module not in done:
            for name in sorted(imports[module]):
                if circle := visit(name, (*above, module)):
                    return circle
            done.add(module)
        return []

    circles = (visit(module, ()) for module in imports)
    return next((circle for circle in circles if circle), [])


@pytest.mark.parametrize("path", sources("segstrat"), ids=module_name)
def test_the_library_knows_neither_ray_nor_the_study(path: Path):
    assert not packages(path) & {"ray", "optuna", "study", "search_spaces"}


@pytest.mark.parametrize("module", STUDY)
def test_only_one_package_imports_ray(module: str):
    if unit(module) != RAY_ONLY_IN:
        assert "ray" not in packages(MODULES[module])


@pytest.mark.parametrize("name", LIGHT)
def test_it_loads_neither_torch_nor_ray(name: str):
    modules = [module for module in STUDY if unit(module) == name]
    assert modules
    code = f"import sys, {', '.join(modules)}; print(sorted({{'torch', 'ray'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def test_imports_point_down():
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    upward = [
        f"{module} imports {other}"
        for module in STUDY
        for other in imports_of(module)
        if other in STUDY and unit(other) != unit(module) and level[unit(other)] >= level[unit(module)]
    ]
    assert upward == []


def test_no_module_imports_itself_through_others():
    assert find_circle({module: imports_of(module) for module in MODULES}) == []


def test_a_circle_is_seen():
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_the_root_of_study_is_short():
    assert len(list((ROOT / "study").glob("*.py"))) <= MOST_ROOT_FILES


def test_levels_name_every_unit():
    named = [name for names in LEVELS for name in names]
    assert sorted(named) == sorted({unit(module) for module in STUDY} - {""})
    assert all(first.isdisjoint(second) for first, second in pairwise(LEVELS))
