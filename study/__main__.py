"""The command `segstrat`: `segstrat run …` is `uv run python study/run.py …`, and so for all commands."""

import importlib
import sys
from collections.abc import Mapping, Sequence

from segstrat.errors import unknown_name
from study.on_ray.runtime import end_process

# Command -> its module and what it does.
COMMANDS = {
    "run": ("study.run", "runs, plans, resumes and looks at studies"),
    "report": ("study.report", "rebuilds the page of a study from its frames"),
    "predict": ("study.predict", "predicts with a trained trial"),
    "pretrain": ("study.pretrain", "pre-trains a backbone on a classification folder"),
}
OF_DATA = {
    "convert": ("segstrat.data.convert", "makes a data set of an export of an annotation tool"),
    "audit": ("segstrat.data.audit.__main__", "checks a data set"),
    "download": ("segstrat.data.download.__main__", "downloads the thesis's data sets"),
    "shrink": ("segstrat.data.shrink", "writes a smaller copy of a data set"),
    "cache": ("segstrat.data.cache.__main__", "shows and empties the cache"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one of the commands and returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    table, of_data = COMMANDS, words[:1] == ["data"]
    if of_data:
        table, words = OF_DATA, words[1:]
    if not words or words[0] in ("-h", "--help"):
        print(_usage(table, of_data=of_data))
        return 0
    if words[0] not in table:
        known = table if of_data else [*table, "data"]
        print(f"error: {unknown_name('command', words[0], known)}", file=sys.stderr)
        return 2
    return importlib.import_module(table[words[0]][0]).main(words[1:])


def script() -> None:
    """The entry point of the installed command."""
    end_process(main())


def _usage(table: Mapping[str, tuple[str, str]], *, of_data: bool) -> str:
    name = "segstrat data" if of_data else "segstrat"
    lines = [f"usage: {name} COMMAND …; {name} COMMAND --help lists its flags", ""]
    lines += [f"  {command:<10}{words}" for command, (_, words) in table.items()]
    if not of_data:
        lines.append(f"  {'data':<10}{', '.join(OF_DATA)}")
    return "\n".join(lines)


if __name__ == "__main__":
    script()
