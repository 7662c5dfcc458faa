"""The direction of imports: the library is free of Ray, the analysis of torch, and nothing runs in a circle.

Every import counts, those inside functions too.
"""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
RAY_ONLY_IN = "on_ray"
# Load neither torch nor Ray.
LIGHT = ("planning", "state", "search", "console", "analysis", "reporting", "frame", "report", "cli")
MOST_ROOT_FILES = 7
MOST_ANALYSIS_LEVELS = 9


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


def map_rows(title: str) -> list[set[str]]:
    """The names of each row of one table of CONTRIBUTING.md's map, such as `data/readers`."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition(f"### `{title}/`")[2].partition("\n#")[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", section, flags=re.MULTILINE)
    return [{each.rstrip("/") for each in re.findall(r"`([^`]+)`", cell)} for cell in cells]


def test_the_map_names_every_package():
    for top in ("segstrat", "study"):
        folders = [path.parent for path in (ROOT / top).rglob("*/__init__.py")]
        packages = {folder.relative_to(ROOT / top).as_posix() for folder in folders}
        assert packages == {each for row in map_rows(top) for each in row if (ROOT / top / each).is_dir()}
        modules = {path.stem for path in (ROOT / top).glob("*.py")} - {"__init__"}
        assert modules == {each for row in map_rows(top) for each in row if not (ROOT / top / each).is_dir()}


def test_imports_point_up_the_map():
    row_of = {each: number for number, row in enumerate(map_rows("study")) for each in row}
    downward = [
        f"{module} imports {other}"
        for module in STUDY
        for other in imports_of(module)
        if other in STUDY and unit(other) != unit(module) and row_of[unit(other)] >= row_of[unit(module)]
    ]
    assert downward == []


def test_the_library_knows_neither_ray_nor_the_study():
    foreign = {"ray", "optuna", "study", "search_spaces"}
    found = {module_name(path): packages(path) & foreign for path in sources("segstrat")}
    assert {module: names for module, names in found.items() if names} == {}


def test_only_one_package_imports_ray():
    found = {module for module in STUDY if "ray" in packages(MODULES[module])}
    assert {module for module in found if unit(module) != RAY_ONLY_IN} == set()


def test_the_light_packages_load_neither_torch_nor_ray():
    modules = [module for module in STUDY if unit(module) in LIGHT]
    assert {unit(module) for module in modules} == set(LIGHT)
    code = (
        "import importlib, sys\n"
        f"for module in {modules}:\n"
        "    importlib.import_module(module)\n"
        "    if found := {'torch', 'ray'} & set(sys.modules): sys.exit(f'{module} loads {found}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr


def test_no_module_imports_itself_through_others():
    assert find_circle({module: imports_of(module) for module in MODULES}) == []


def test_the_analysis_is_flat_and_its_imports_point_one_way():
    parts = {module for module in STUDY if module.startswith("study.analysis.")}
    imports = {module: (imports_of(module) & parts) - {module} for module in parts}

    @cache
    def level(module: str) -> int:
        return max((1 + level(other) for other in imports[module]), default=0)

    # A package counts as one: none may import a module of the root that imports from it.
    def room(module: str) -> str:
        package = ".".join(module.split(".")[:3])
        return package if MODULES[module].parent.name != "analysis" else module

    rooms: dict[str, set[str]] = {room(module): set() for module in parts}
    for module, others in imports.items():
        rooms[room(module)] |= {room(other) for other in others} - {room(module)}
    assert find_circle(rooms) == []
    assert max(map(level, parts)) <= MOST_ANALYSIS_LEVELS, max(parts, key=level)


def test_a_circle_is_seen():
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_the_root_of_study_is_short():
    assert len(list((ROOT / "study").glob("*.py"))) <= MOST_ROOT_FILES
