"""The tutorial notebook runs from top to bottom, and what is stored in it is small and complete."""

from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_every_cell_has_been_run_in_order_and_nothing_failed(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert "error" not in {output.output_type for output in outputs}
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 150_000
    assert "image/png" in text, "the figure"
    for name in ("load(", "answer(", "dataset.toml", "--space", "groupby", "Traceback"):
        assert (name in text) == (name != "Traceback"), name


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_it_runs_and_shows_the_stored_tables(notebook, monkeypatch):
    # A short path: Ray keeps its sockets in the temporary folder.
    monkeypatch.setenv("TMPDIR", "/tmp")
    stored = stored_tables(notebook)
    resources = {"metadata": {"path": str(ROOT / "docs")}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    assert len(stored) == 3
    assert [list(table) for table in stored_tables(notebook)] == [list(table) for table in stored]


def stored_tables(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """The header of every frame that a cell shows."""
    return [
        output.data["text/plain"].splitlines()[0].split()
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "text/html" in output.get("data", {})
    ]
