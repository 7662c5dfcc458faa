"""`uv run python -m study.frame results/<study> …` writes the frames again from the trials' records.

With `--digest` it only prints their digests without times, by which a repetition is recognized.
"""

import sys
from collections.abc import Sequence

from segstrat.errors import UserError
from study.frame import digests, load, write_frames


def main(folders: Sequence[str]) -> int:
    """Writes the frames of the given studies again, or prints their digests; returns the exit code."""
    only_digest = "--digest" in folders
    folders = [folder for folder in folders if folder != "--digest"]
    try:
        if not folders:
            raise UserError("no study given: uv run python -m study.frame results/STUDY")
        for folder in folders:
            if only_digest:
                of_trials, of_epochs = digests(load(folder))
                print(f"{folder}: trials {of_trials}, epochs {of_epochs}")
                continue
            trials, _ = write_frames(folder)
            print(f"{folder}: frames of {len(trials)} trials written")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
