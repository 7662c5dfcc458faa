"""Tables that fit the console: the first column is shortened before the last one, the status, disappears."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

GAP = 2
# Enough for "completed" and for "pre-trained".
LAST_WIDTH, FIRST_WIDTH = 9, 11


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Args:
        title: may have several lines.
        optional: left out where the table is too wide.
    """

    title: str
    cells: Sequence[str | Text]
    justify: str = "right"
    optional: bool = False

    @property
    def width(self) -> int:
        """Characters of its longest cell or line of the title."""
        lines = self.title.split("\n")
        return max(len(text) for text in (*lines, *(str(cell) for cell in self.cells)))


def new_table() -> Table:
    """An empty table in the console's style."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def fitted_table(columns: Sequence[Column], width: int) -> Table:
    """A table of at most `width` characters, as far as the columns between first and last allow.

    Optional columns are left out from the right, then the first column is shortened. The last column takes
    the space that remains; what does not fit is cut.
    """
    first, *middle, last = columns
    least = min(last.width, LAST_WIDTH)

    def space() -> int:
        return width - least - GAP - sum(column.width + GAP for column in middle)

    while space() < first.width and any(column.optional for column in middle):
        middle.remove([column for column in middle if column.optional][-1])
    first_width = max(min(first.width, space()), min(first.width, FIRST_WIDTH))
    table = new_table()
    table.add_column(first.title, no_wrap=True, width=first_width)
    for column in middle:
        table.add_column(column.title, justify=column.justify, no_wrap=True, width=column.width)  # type: ignore[arg-type]
    last_width = min(last.width, max(least, space() + least - first_width))
    table.add_column(last.title, no_wrap=True, width=last_width)
    for row in zip(*(column.cells for column in (first, *middle, last)), strict=True):
        table.add_row(*row)
    return table


def two_lines(title: str) -> str:
    """A title of several words on two lines: narrow columns have short numbers."""
    first, _, rest = title.partition(" ")
    return f"{first}\n{rest}" if rest else first
