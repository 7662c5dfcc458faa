"""Pre-training in a process of its own, so that the caller never holds a CUDA context.

A context and torch's cached memory would stay on the GPU for as long as the process lives, beside the trials
of the study that it drives. The job goes to the process as JSON on its standard input, reports come back as
lines of JSON on its standard output.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from segstrat.errors import UserError
from segstrat.machine import Machine
from segstrat.pretraining.job import PretrainJob
from segstrat.pretraining.loop import PretrainReport

_ROOT = Path(__file__).parents[2]


def run_isolated(
    job: PretrainJob, machine: dict[str, Any], started: Callable[[subprocess.Popen], object] = id
) -> Iterator[PretrainReport]:
    """The reports of a job that another process runs; closing the iterator ends the process.

    Args:
        machine: fields of the `Machine`, which the process makes, because making it may ask CUDA.
        started: gets the process.

    Raises:
        UserError: from the process.
        RuntimeError: if it ends without a word, for example when it is killed.
    """
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        # Ctrl-C reaches only the caller, which ends the process itself.
        start_new_session=True,
    )
    started(process)
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            process.stdin.write(json.dumps({"job": job.to_dict(), "machine": machine}))
            process.stdin.close()
            for line in process.stdout:
                message = json.loads(line)
                if "error" in message:
                    raise UserError(message["error"])
                yield PretrainReport(**message)
            if process.wait():
                code = process.returncode
                raise RuntimeError(f"the process that pre-trains {job.backbone} ended with exit code {code}")
        finally:
            process.terminate()


def main() -> int:
    """The process: reads a job, runs it, writes a line per report."""
    request = json.loads(sys.stdin.read())
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    # What libraries print must not mix with the reports.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        job = PretrainJob.from_dict(request["job"])
        for report in job.run(Machine(**request["machine"])):
            # Without a reader this fails: when the caller is gone, the process ends too.
            messages.write(json.dumps(dataclasses.asdict(report)) + "\n")
    except UserError as error:
        messages.write(json.dumps({"error": str(error)}) + "\n")
    except (KeyboardInterrupt, BrokenPipeError):
        with contextlib.suppress(BrokenPipeError):
            messages.close()
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
