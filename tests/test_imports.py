"""The direction of imports, which keeps the library free of Ray and the analysis free of torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ANALYSIS = ("frame", "analysis.answer", "reporting.figures", "report")


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("path", sorted((ROOT / "segstrat").rglob("*.py")), ids=lambda p: p.stem)
def test_the_library_knows_neither_ray_nor_the_study(path: Path):
    assert not imported(path) & {"ray", "optuna", "study", "search_spaces"}


@pytest.mark.parametrize("module", ANALYSIS)
def test_the_analysis_loads_neither_torch_nor_ray(module: str):
    code = f"import sys, study.{module}; print(sorted({{'torch', 'ray'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
