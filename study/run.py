"""Runs a study: a search space, on a data protocol, under Ray Tune.

    python study/run.py --space wd_grid

Exit codes: 0 all trials ended well; 1 some failed; 2 the command, data or storage is wrong (one sentence says
what to do); 130 and 143 after Ctrl-C and SIGTERM.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    # Run as a script: the project's folder, and not study/, is where modules are looked for.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from segstrat.errors import UserError
from study.cli import Options, parse
from study.driver.interrupts import StudyInterruptedError
from study.on_ray.runtime import prepare_environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    try:
        options = parse(arguments)
        prepare_environment(joining=options.address is not None, verbose=options.verbose)
        return dispatch(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; a study that had begun goes on with --resume", file=sys.stderr)
        return 130
    except StudyInterruptedError as interrupt:
        return 128 + interrupt.signum


def dispatch(options: Options) -> int:
    """Does what the options ask for; what is not needed for it is not imported."""
    if options.list:
        from study.driver.overview import show_spaces

        return show_spaces()
    if options.status is not None:
        from study.driver.overview import show_status

        return show_status(options.status)
    if options.dry_run:
        from study.driver.overview import show_plan

        return show_plan(options)
    from segstrat.paths import cache_dir
    from study.driver.bytecode import keep_bytecode

    keep_bytecode(cache_dir() / "bytecode")
    from study.driver.session import run_study

    return run_study(options)


if __name__ == "__main__":
    sys.exit(main())
