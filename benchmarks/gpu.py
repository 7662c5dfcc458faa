"""On a CUDA GPU, 512×512, batch 10, in ten minutes: steps, epochs, memory, determinism, packed trials.

One command on a machine with a GPU: `uv run --group peers python -m benchmarks gpu`. Each section runs in a
process of its own with its own time budget: one that fails, hangs or takes too long costs only its own rows.
Results are written after every section. `--dry` runs every line on a CPU at tiny sizes, uncompiled.
"""

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch
from rich.table import Table

from benchmarks.on_gpu import epochs, memory, packed, pretraining, resume, step
from benchmarks.on_gpu.setting import Row, Rows, Setting
from benchmarks.peers import UnavailableError
from benchmarks.scenes import scenes_folder
from segstrat.parallel import cpu_cores

SECONDS = 560.0
IMAGES, VALIDATION, DRAWN = 1500, 200, 300
# As many images as VOC has for training; of its 1,449 for validation, fewer.


@dataclass(frozen=True)
class Section:
    """One part of the benchmark, and the seconds after which it is stopped."""

    title: str
    rows: Callable[[Setting], Rows]
    seconds: float


# What matters most comes first: all share `SECONDS`.
SECTIONS = {
    "step": Section("training step, FCN-32s-ResNet-18", step.fcn_rows, 150),
    "epoch": Section("whole epoch", epochs.epoch_rows, 150),
    "validation": Section("validation", epochs.validation_rows, 40),
    "memory": Section("memory over 20 epochs", memory.growth_rows, 90),
    "resume": Section("deterministic training", resume.resume_rows, 90),
    "packed": Section("packed trials", packed.packed_rows, 90),
    "probe": Section("memory of a trial and its prediction", memory.probe_rows, 120),
    "pretraining": Section("pre-training of ResNet-18", pretraining.pretraining_rows, 60),
    "sunet": Section("training step, SUNet-64", step.sunet_rows, 240),
}


@dataclass
class SectionResult:
    """What a section measured.

    Args:
        status: `done`, `failed`, `out of time`, or `no time left`.
        error: the traceback of a failure.
    """

    status: str
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def run_sections(
    done: Callable[[str, SectionResult], object], *, device: str, tiny: bool, seconds: float = SECONDS
) -> None:
    """Runs the sections one after another.

    Args:
        done: gets the name and the result of each section as soon as it has ended.
        seconds: for all sections together; what is left limits each of them.

    Raises:
        UnavailableError: for `cuda` on a machine without a GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UnavailableError(
            "no CUDA GPU here; on a machine with one, run `uv run --group peers python -m benchmarks gpu`"
        )
    end = time.perf_counter() + seconds
    images, validation = (4, 2) if tiny else (IMAGES, VALIDATION)
    cores = cpu_cores()
    with scenes_folder(images, validation, drawn=min(images, DRAWN)) as root:
        setting = Setting(device=device, root=root, tiny=tiny, cores=1 if tiny else cores)
        # Decoded once, before any section counts time.
        setting.data()
        for name, section in SECTIONS.items():
            left = end - time.perf_counter()
            if left <= 0:
                done(name, SectionResult("no time left"))
                continue
            done(name, run_section(section, setting, min(left, section.seconds)))


def run_section(
    section: Section, setting: Setting, seconds: float, *, method: str = "spawn"
) -> SectionResult:
    """Runs a section in a process of its own, which is ended after `seconds`.

    Args:
        method: how the process is started; a forked one cannot use CUDA.
    """
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(  # type: ignore[attr-defined]
        target=_run, args=(section.rows, setting, sender)
    )
    start = time.perf_counter()
    process.start()
    sender.close()
    result = SectionResult("out of time")
    try:
        while receiver.poll(max(0.0, seconds - (time.perf_counter() - start))):
            message = receiver.recv()
            if isinstance(message, Row):
                result.rows.append(message)
                continue
            result.status, result.error = ("failed", message) if message else ("done", "")
            break
    except EOFError:
        process.join()
        result.status, result.error = "failed", f"its process ended with exit code {process.exitcode}"
    finally:
        result.seconds = time.perf_counter() - start
        _end(process, grace=0.0 if result.status == "out of time" else 5.0)
        receiver.close()
    return result


def _run(rows: Callable[[Setting], Rows], setting: Setting, sender: Connection) -> None:
    """The process of a section: sends its rows, then '' or the traceback of what ended it."""
    # A group of its own, so that it can be ended with the processes that it starts.
    os.setpgid(0, 0)
    try:
        for row in rows(setting):
            sender.send(row)
        sender.send("")
    except BaseException:
        sender.send(traceback.format_exc())


def _end(process: multiprocessing.process.BaseProcess, *, grace: float) -> None:
    process.join(grace)
    if process.is_alive() and process.pid is not None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            # Not yet a group: it has not reached `_run`.
            process.kill()
        process.join()


def section_table(name: str, result: SectionResult) -> Table:
    """A section as a table on the console."""
    title = f"{SECTIONS[name].title}: {result.status}, {result.seconds:.0f} s"
    table = Table(title=title, title_justify="left", min_width=60)
    for column in ("", "value", "unit", "note"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for row in result.rows:
        value = row.value if isinstance(row.value, str) else f"{row.value:.4g}"
        table.add_row(row.name, value, row.unit, row.note)
    table.caption = result.error.strip().splitlines()[-1] if result.error else None
    table.caption_justify = "left"
    return table
