"""Runs a study: a search space, on a data protocol, under Ray Tune.

    uv run python study/run.py --space wd_grid

Exit codes: 0 all trials ended well; 1 some failed; 2 the command, data or storage is wrong (one sentence says
what to do); 130 and 143 after Ctrl-C and SIGTERM.
"""

import errno
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    # Run as a script: the project's folder, and not study/, is where modules are looked for.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

try:
    from segstrat.errors import UserError
    from study.cli import Flags, parse
    from study.on_ray.runtime import end_process, keep_bytecode, prepare_environment
except ModuleNotFoundError as error:
    # Outside of the project's environment.
    sys.exit(f"error: {error.name} is not installed for {sys.executable}; run: uv run python study/run.py …")

FULL_DISK = "free some space; a study that has begun continues with --resume"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    flags = None
    try:
        flags = parse(arguments)
        prepare_environment(joining=flags.address is not None, verbose=flags.verbose)
        return dispatch(flags)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if flags is not None and flags.verbose:
            raise
        remedy = FULL_DISK if error.errno in (errno.ENOSPC, errno.EDQUOT) else "--verbose shows where"
        print(f"error: {error}; {remedy}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; continue the study with --resume", file=sys.stderr)
        return 130


def dispatch(flags: Flags) -> int:
    """Does what the flags ask for; what is not needed for it is not imported."""
    if flags.list:
        from study.driver.overview import show_spaces

        return show_spaces()
    if flags.new_space is not None:
        from study.planning.space_files import write_template

        path = write_template(flags.new_space)
        print(f"{path} written; look at its trials with: uv run python study/run.py --space {path} --dry-run")
        return 0
    from segstrat.store import cache_dir

    keep_bytecode(cache_dir() / "bytecode")
    if flags.status is not None:
        from study.driver.overview import show_status

        return show_status(flags.status, verbose=flags.verbose)
    if flags.dry_run:
        from study.driver.dry_run import show_plan

        return show_plan(flags)
    from study.driver.session import run_study

    return run_study(flags)


if __name__ == "__main__":
    end_process(main())
