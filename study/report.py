"""results/<study>/ -> report.html, one self-contained file, rebuilt from the frames alone.

    python study/report.py results/<study>

Needs neither torch nor Ray.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).parents[1])

import jinja2

from segstrat.errors import UserError
from segstrat.store import Store
from study.cells import Study
from study.plots import weight_decay_pair
from study.style import Picture

TEMPLATES = Path(__file__).parent / "templates"


def write_report(folder: str | Path | Store, *, files: bool = True) -> str:
    """Writes report.html and figures/ of a study and returns the report's one sentence.

    Args:
        files: also write each figure as SVG and PNG; left out while a study still runs.

    Raises:
        UserError: if the folder holds no frames.
    """
    store = folder if isinstance(folder, Store) else Store(folder)
    study = Study.open(store)
    treatments = study.axes("treatment")
    pictures = [weight_decay_pair(study, axis, study.tasks[0]) for axis in treatments]
    store.write("report.html", render(study, pictures).encode())
    if files:
        for picture in pictures:
            for name, data in picture.files().items():
                store.write(f"figures/{name}", data)
    return ""


def render(study: Study, pictures: list[Picture]) -> str:
    """The page's text."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    return environment.get_template("report.html").render(study=study, pictures=pictures)


def main(arguments: list[str]) -> int:
    """Rebuilds the reports of the given studies."""
    try:
        for folder in arguments:
            write_report(folder)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
