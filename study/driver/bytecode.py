"""A folder for compiled modules where the environment forbids them next to their sources."""

import os
import sys
from pathlib import Path


def keep_bytecode(folder: Path) -> None:
    """Lets this process, and those that it starts, keep compiled modules under `folder`.

    Container images often set PYTHONDONTWRITEBYTECODE; each worker of a study then compiles torch and Ray
    again, which takes longer than importing them. Does nothing where Python keeps compiled modules already.
    """
    if not sys.dont_write_bytecode or sys.pycache_prefix:
        return
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(folder)
