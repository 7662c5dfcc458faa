"""How a resumed study repairs a trial whose files are damaged; at most the trial itself is trained again."""

from segstrat.image_counts import COUNTS, read_counts
from segstrat.records import (
    OUTCOME,
    RECORDS,
    TrialRecord,
    TrialStatus,
    checkpoint_epochs,
    checkpoint_name,
    parse_records,
    read_record,
    read_records,
)
from segstrat.store import DamagedFileError, Store, write_object
from study.frame.build import lost_counts


def recover_record(folder: Store) -> tuple[TrialRecord, str]:
    """Reads a trial's files and repairs what is damaged, so that the trial can be finished.

    Records are restored from the newest good checkpoint; an outcome that cannot be read, or that the records
    do not support, is deleted, to be decided again. Pixel counts are made again from the last checkpoint, or
    by training the trial again: without them its seed is incomplete.

    Returns:
        the record, and one sentence about what was done, '' where nothing was damaged.
    """
    record = read_record(folder)
    if not record.problem:
        return _with_counts(folder, record, _lost(folder, record))
    problem = record.problem
    checkpoint = _restore_records(folder)
    if checkpoint:
        record = read_record(folder)
        if not record.problem:
            return record, f"{problem}; restored from {checkpoint}"
    folder.delete(OUTCOME)
    record = read_record(folder)
    if record.problem:
        folder.delete(RECORDS)
        record = read_record(folder)
    if record.training_ended:
        return record, f"{problem}; the outcome is decided again from the records"
    if record.all_reports or _has_checkpoint(folder):
        return record, f"{problem}; the trial continues after its newest good checkpoint"
    return record, f"{problem}; the trial is trained again"


def _lost(folder: Store, record: TrialRecord) -> str:
    """Why the pixel counts of a completed trial are not there, '' if they are, or never were."""
    if record.status is not TrialStatus.COMPLETED:
        return ""
    try:
        return lost_counts(record, read_counts(folder))
    except ValueError as error:
        return str(error)


def _with_counts(folder: Store, record: TrialRecord, problem: str) -> tuple[TrialRecord, str]:
    """Lets a worker take the trial again, which makes its pixel counts from the last checkpoint."""
    if not problem:
        return record, ""
    counted = _has_checkpoint(folder)
    for name in (OUTCOME, RECORDS, COUNTS):
        folder.delete(name)
    what = (
        "they are counted again with the newest good checkpoint" if counted else "the trial is trained again"
    )
    return read_record(folder), f"{problem}; {what}"


def _has_checkpoint(folder: Store) -> bool:
    return bool(checkpoint_epochs(folder.names()))


def _restore_records(folder: Store) -> str:
    """Replaces a trial's records where a checkpoint holds more epochs than they do.

    Returns:
        name of the checkpoint that they were restored from, '' if there was nothing to restore.
    """
    # Imported here: it needs torch, which a study without damage does not load.
    from segstrat.checkpoint import newest_checkpoint

    known = _epochs_on_record(folder)
    newest = newest_checkpoint(folder)
    if newest is None:
        return ""
    epoch, state = newest
    content = {name: state.get(name) for name in ("facts", "reports")}
    try:
        _, reports = parse_records(content)
    except DamagedFileError:  # of a version whose checkpoints held no facts
        return ""
    if len(reports) <= known:
        return ""
    write_object(folder, RECORDS, content)
    return checkpoint_name(epoch)


def _epochs_on_record(folder: Store) -> int:
    try:
        return len(read_records(folder)[1])
    except DamagedFileError:
        return 0
