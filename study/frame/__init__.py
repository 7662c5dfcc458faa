"""Trial records -> two tidy frames: `trials`, one row per trial, and `epochs`, trial × epoch × split × task.

    from study.frame import load
    trials, epochs = load("results/my-study")

Read `status` first: only a `completed` trial has a final value, and the `last_…` columns of any other trial
are what it showed when it ended. docs/reading-results.md lists the columns.
"""

from study.frame.build import SCHEMA, epoch_table
from study.frame.columns import STATUSES
from study.frame.files import (
    MANIFEST,
    OldFrameError,
    build_frames,
    load,
    read_frame,
    read_manifest,
    write_frames,
)

__all__ = [
    "MANIFEST",
    "SCHEMA",
    "STATUSES",
    "OldFrameError",
    "build_frames",
    "epoch_table",
    "load",
    "read_frame",
    "read_manifest",
    "write_frames",
]
