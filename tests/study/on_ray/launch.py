"""`study/run.py` with the tests' own search spaces: python launch.py FLAGS."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[0] = str(HERE.parents[2])

from study.planning import space as spaces  # noqa: E402
from study.run import main  # noqa: E402


def use_test_spaces() -> None:
    """Lets the command line find `spaces/*.py` next to this file."""
    import search_spaces

    spaces.SPACES_DIR = HERE / "spaces"
    search_spaces.__path__.append(str(HERE / "spaces"))


if __name__ == "__main__":
    use_test_spaces()
    sys.exit(main())
