"""Table of the published data sets, and their download; `uv run python -m segstrat.data.download`."""

from segstrat.data.download.fetch import install
from segstrat.data.download.published import DATA_SETS

__all__ = ["DATA_SETS", "install"]
