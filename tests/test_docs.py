"""What the documentation names exists: files, modules, flags, links, columns, the numbers of the recipes."""

import re
import tomllib
from functools import cache, partial
from pathlib import Path

import pytest
import yaml

import segstrat
from search_spaces import recipes
from study.cli import make_parser
from study.frame import build

ROOT = Path(__file__).parents[1]
DOCS = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "results/thesis/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
COMMANDS = ("study/run.py", "study/report.py", "study/predict.py", "study/pretrain.py")
FOLDERS = "segstrat|study|search_spaces|tests|benchmarks|deploy|docs"


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def text(path: Path) -> str:
    # A command may continue on the next line.
    return path.read_text(encoding="utf-8").replace("\\\n", "")


def outside_code(path: Path) -> str:
    return re.sub(r"```.*?```|^ {4}.*?$|`[^`\n]*`", "", text(path), flags=re.DOTALL | re.MULTILINE)


@cache
def flags(path: Path) -> set[str]:
    """Every `--flag` that a file's parser knows."""
    return {"--help", *re.findall(r'"(--[a-z][a-z-]*)"', path.read_text(encoding="utf-8"))}


def command_flags(command: str) -> set[str]:
    """Flags of a script such as `study/run.py` or a module such as `segstrat.data.audit`."""
    if command == "study/run.py":
        return {name for action in make_parser()._actions for name in action.option_strings}
    return flags(ROOT / command if command.endswith(".py") else module_file(command))


def module_file(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__main__.py" if path.is_dir() else path.with_suffix(".py")


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_every_path_exists(path: Path):
    # `search_spaces/<name>.py` is a pattern, not a file.
    named = re.findall(rf"(?<![\w/.])(?:{FOLDERS})/[\w\-./*]*+(?!<)", text(path))
    missing = [each for each in named if not any(ROOT.glob(each.rstrip("./")))]
    assert missing == []


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_every_dotted_name_exists(path: Path):
    for dotted in re.findall(r"`((?:segstrat|study|benchmarks)\.[\w.]+)`", text(path)):
        module, _, member = dotted.rpartition(".")
        found = module_file(dotted).is_file() or (ROOT / dotted.replace(".", "/")).is_dir()
        file = ROOT / module.replace(".", "/") / "__init__.py"
        file = file if file.is_file() else module_file(module)
        defined = file.is_file() and re.search(rf"\b{member}\b", file.read_text(encoding="utf-8"))
        assert found or defined, dotted


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_every_module_that_is_run_exists(path: Path):
    modules = [each for each in re.findall(r"python -m ([\w.]+)", text(path)) if each != "pytest"]
    assert [module for module in modules if not module_file(module).is_file()] == []


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_every_flag_exists(path: Path):
    calls = re.findall(r"(?<!/)(study/\w+\.py|-m (?:segstrat|benchmarks)[\w.]*)([^`#\n;]*)", text(path))
    for command, rest in calls:
        used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest))
        assert used <= command_flags(command.removeprefix("-m ")), f"{command}{rest}"
    modules = [f"segstrat.data.{module}" for module in ("audit", "cache", "convert", "download", "shrink")]
    modules = [module for module in modules if module_file(module).is_file()]
    anywhere = set().union(*map(command_flags, (*COMMANDS, *modules)))
    alone = set(re.findall(r"`(--[a-z][a-z-]*)", text(path)))
    assert alone <= anywhere | flags(ROOT / "benchmarks" / "__main__.py")


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_commands_use_the_environment_of_the_project(path: Path):
    lines = [line for line in text(path).splitlines() if re.search(r"python (study/|-m )", line)]
    # Words about a command may leave it out; what is to be copied may not.
    assert [line for line in lines if line.startswith("    ") and "uv run" not in line] == []


def test_printed_commands_use_the_environment_of_the_project():
    sources = [path for top in ("segstrat", "study", "search_spaces") for path in (ROOT / top).rglob("*.py")]
    bare = re.compile(r"(?<!uv run )(?<!prog=\")python (?:study/|-m (?:study|segstrat)\b)")
    assert [name(path) for path in sources if bare.search(text(path))] == []


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_every_link_resolves(path: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", outside_code(path)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        if anchor:
            assert anchor in map(slug, re.findall(r"^#+ (.*)$", text(linked), flags=re.MULTILINE)), target


def test_every_column_of_the_frames_is_described():
    described = set(re.findall(r"`([^`]+)`", text(ROOT / "docs" / "reading-results.md")))
    names = {*build.TRIAL_KEYS, *build.TRIAL_FACTS, *build.EPOCH_KEYS, *build.EPOCH_FACTS}
    names |= {*build.SCORES, *build.image_columns(["<task>"]), *build.jackknife_columns(["<task>"])}
    names |= {*build.image_names(["<task>"])}
    assert names - described == set()


def test_the_table_of_recipes_states_their_numbers():
    page = text(ROOT / "docs" / "spaces.md")
    named = {
        "thesis": partial(recipes.thesis, "fcn32s"),
        "figures": partial(recipes.figures, "fcn8s"),
        "photographs": recipes.photographs,
        "overfitting": recipes.overfitting,
        "imagenet": recipes.imagenet,
    }
    for key, recipe in named.items():
        raw, pretrained = recipe(pretrained=False), recipe(pretrained=True)
        (row,) = re.findall(rf"^\| `{key}` \| .*$", page, re.MULTILINE)
        _, _, _, epochs, crop, batch, rate, _ = (cell.strip() for cell in row.split("|"))
        assert epochs.startswith(f"{raw['epochs']}, {pretrained['epochs']}"), key
        assert (crop, batch) == (str(raw["crop_size"]), str(raw["batch_size"])), key
        rates = [float(word) for word in re.findall(r"\d[\d.e-]*", rate.partition("(")[0])]
        assert set(rates) == {raw["learning_rate"], pretrained["learning_rate"]}, key


def test_deviations_from_the_thesis_are_called_so():
    table = text(ROOT / "docs" / "design.md").partition("## What differs from the thesis")[2]
    for word in ("half of D1", "score layers", "flip", "left and right parts", "SUNet", "equal_budget"):
        assert word in table, word
    assert "three pools" in text(ROOT / "docs" / "models.md")


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == citation["version"] == segstrat.__version__
