"""Spaces outside the project: written from the template, imported, and sent to the nodes of a cluster."""

import subprocess
import sys
from pathlib import Path

import pytest

from segstrat.errors import UserError
from study.cli import parse
from study.driver.prepare import open_study
from study.planning.space import load_space
from study.planning.space_files import SHIPPED, import_on_worker, ship_space_folder, write_template
from study.planning.trials import plan
from study.run import main

ROOT = Path(__file__).parents[3]


@pytest.fixture
def template(tmp_path) -> Path:
    return write_template(str(tmp_path / "my_space"))


def test_the_template_is_a_space(template):
    space = load_space(str(template))
    assert space.name == "my_space"
    assert space.source == template.read_text()
    trials = plan(space, "figures", weights="w")
    assert {trial.arm for trial in trials} == {"raw", "pre-trained"}
    assert len(trials) == 6
    assert all(trial.config.width == 0.25 for trial in trials), "ON replaces BASE"


def test_the_template_as_it_is_commented_out_is_right_too(template):
    text = template.read_text()
    parts = ("# ROLES", "# METRIC", "# SEEDS", "# def recipe", "#     rate", "#     return", '# "dropout"')
    for commented in parts:
        assert commented in text
        text = text.replace(commented, commented.removeprefix("# "))
    text = text.replace("ROLES = {", 'SAMPLES = 4\nSPACE["batch_size"] = tune.grid_search([4, 8])\nROLES = {')
    template.write_text(text)
    space = load_space(str(template))
    assert space.seeds == (0, 1)
    assert space.roles == {
        "pretrained": "arm",
        "weight_decay": "treatment",
        "dropout": "treatment",
        "batch_size": "nuisance",
    }
    assert plan(space, "folder", weights="w")[0].config.crop_size == 256


def test_the_study_is_named_after_the_file_and_finds_it_from_anywhere(template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = open_study(parse(["--space", "my_space.py"]))
    assert opened.settings.name == "my_space-figures"
    assert opened.settings.space == str(template)


def test_modules_next_to_a_space_can_be_imported(template):
    (template.parent / "my_values.py").write_text("DECAYS = [0.0, 0.5]\n")
    text = template.read_text().replace("[0.0, 5e-4, 5e-3]", "my_values.DECAYS")
    template.write_text(text.replace("from ray import tune", "import my_values\nfrom ray import tune"))
    assert load_space(str(template)).axes["weight_decay"] == [0.0, 0.5]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("x = 1 / 0", "ZeroDivisionError: division by zero"),
        ("x = (", "SyntaxError"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("del QUESTION", "QUESTION missing"),
        ("BASE = {'modle': 'fcn8s'}", "did you mean 'model'"),
        ("SPACE['batch_size'] = tune.grid_search([4, 8])", "'batch_size' has no role; give ROLES"),
    ],
)
def test_a_mistake_in_a_space_is_one_sentence(template, change, words, capsys):
    with template.open("a") as file:
        file.write(change + "\n")
    assert main(["--space", str(template), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    if "Error" in words:
        assert f"line {len(template.read_text().splitlines())}" in error


def test_a_template_does_not_replace_a_file(template):
    with pytest.raises(UserError, match="exists already"):
        write_template(str(template))
    with pytest.raises(UserError, match="cannot be written"):
        write_template(str(template.parent / "no" / "folder"))


def test_a_file_that_is_not_there_is_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="there is no such file"):
        load_space(str(tmp_path / "nowhere.py"))
    monkeypatch.chdir(tmp_path)
    write_template("mine")
    with pytest.raises(UserError, match=r"did you mean the file mine\.py"):
        load_space("mine")


def test_code_travels_and_data_does_not(template, tmp_path):
    folder = template.parent
    (folder / "pictures").mkdir()
    (folder / "pictures" / "a.jpg").write_bytes(b"0" * 1000)
    (folder / "big.bin").write_bytes(b"0" * 1000)
    (folder / "tools").mkdir()
    (folder / "tools" / "__init__.py").write_text("VALUE = 3\n")
    (folder / "tools" / "table.csv").write_text("1")
    target = tmp_path / "target"
    target.mkdir()
    package = ship_space_folder(template, target)
    found = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert found == {"__init__.py", "my_space.py", "tools/__init__.py"}


def test_a_worker_of_another_node_imports_what_was_sent(template, tmp_path):
    # Not the template itself, whose import of Ray takes seconds.
    template.write_text("import builtins, tools\nbuiltins.seen = tools.VALUE\n")
    (template.parent / "tools").mkdir()
    (template.parent / "tools" / "__init__.py").write_text("VALUE = 3\n")
    target = tmp_path / "target"
    target.mkdir()
    ship_space_folder(template, target)
    code = (
        "import sys, builtins; from study.planning.space_files import import_on_worker\n"
        f"sys.path.append({str(target)!r})\n"
        "for _ in range(2): import_on_worker('/elsewhere/my_space.py')\n"
        "print(builtins.seen)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3"


def test_a_worker_without_the_file_says_so():
    assert SHIPPED not in sys.modules
    with pytest.raises(UserError, match="is not on this node"):
        import_on_worker("/elsewhere/other_space.py")
