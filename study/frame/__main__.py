"""`uv run python -m study.frame results/<study> …` writes the frames again from the trials' records."""

import sys
from collections.abc import Sequence

from segstrat.errors import UserError
from study.frame import write_frames


def main(folders: Sequence[str]) -> int:
    """Writes the frames of the given studies again; returns the exit code."""
    try:
        if not folders:
            raise UserError("no study given: uv run python -m study.frame results/STUDY")
        for folder in folders:
            trials, _ = write_frames(folder)
            print(f"{folder}: frames of {len(trials)} trials written")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
