import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
CODE = """
import subprocess, sys
from pathlib import Path
from study.on_ray.runtime import keep_bytecode
keep_bytecode(Path(sys.argv[1]))
import study.state.halving
subprocess.run([sys.executable, "-c", "import study.planning.space_files"], check=True)
"""


def kept(folder: Path, **variables: str) -> set[str]:
    """The project's modules that are kept compiled below `folder` by a process and by a child of it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-c", CODE, str(folder)]
    subprocess.run(command, cwd=ROOT, env=environment | variables, check=True, timeout=120)
    compiled = folder.joinpath(*ROOT.parts[1:], "study").rglob("*.pyc")
    return {path.name.partition(".")[0] for path in compiled}


def test_where_none_may_be_written_they_are_kept_in_the_folder(tmp_path: Path):
    assert kept(tmp_path, PYTHONDONTWRITEBYTECODE="1") >= {"halving", "space_files"}


def test_where_python_keeps_them_already_nothing_changes(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    assert kept(tmp_path / "one", PYTHONPYCACHEPREFIX=str(elsewhere)) == set()
    assert kept(tmp_path / "two", PYTHONDONTWRITEBYTECODE="1", PYTHONPYCACHEPREFIX=str(elsewhere)) == set()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert kept(tmp_path / "file" / "below", PYTHONDONTWRITEBYTECODE="1") == set()
