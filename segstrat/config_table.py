"""Table of all fields: `uv run python -m segstrat.config_table FILE` updates the one in docs/spaces.md."""

import ast
import dataclasses
import inspect
import sys
from pathlib import Path
from typing import get_args

from segstrat import config
from segstrat.config import Limit, TrialConfig

BEGIN, END = "<!-- fields: begin -->", "<!-- fields: end -->"


def descriptions() -> dict[str, str]:
    """The string below each field of `TrialConfig`, by field."""
    (found,) = [
        node
        for node in ast.parse(inspect.getsource(config)).body
        if isinstance(node, ast.ClassDef) and node.name == TrialConfig.__name__
    ]
    texts = {}
    for node, following in zip(found.body, found.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            assert isinstance(following, ast.Expr)
            assert isinstance(following.value, ast.Constant)
            texts[node.target.id] = str(following.value.value)
    return texts


def markdown() -> str:
    """The table, in Markdown: field, default, allowed values, meaning."""
    texts = descriptions()
    lines = ["| field | default | values | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(TrialConfig):
        limits = [part.expected for part in get_args(field.type) if isinstance(part, Limit)]
        lines.append(f"| `{field.name}` | `{field.default!r}` | {', '.join(limits)} | {texts[field.name]} |")
    return "\n".join(lines)


def update(text: str) -> str:
    """`text` with a new table between its markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{markdown()}\n{END}{after}"


def main() -> None:
    """Prints the table, or updates it in the file that is named."""
    if len(sys.argv) < 2:
        print(markdown())
        return
    path = Path(sys.argv[1])
    path.write_text(update(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
