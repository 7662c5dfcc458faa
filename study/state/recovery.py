"""How a resumed study repairs a trial whose files are damaged; at most the trial itself is trained again."""

from segstrat.image_counts import COUNTS, read_counts
from segstrat.records import TrialStatus
from segstrat.store import Store
from segstrat.trial_files import RECORDS, checkpoint_epochs
from segstrat.trial_record import OUTCOME, TrialRecord, read_record


def recover_record(folder: Store) -> tuple[TrialRecord, str]:
    """Reads a trial's files and repairs what is damaged, so that the trial can be finished.

    Records are restored from the newest good checkpoint; an outcome that cannot be read, or that the records
    do not support, is deleted, to be decided again. Pixel counts are made again from the last checkpoint.

    Returns:
        the record, and one sentence about what was done, '' where nothing was damaged.
    """
    record = read_record(folder)
    if not record.problem:
        return _with_counts(folder, record, _lost_counts(folder, record))
    problem = record.problem
    # Imported here: it needs torch, which a study without damage does not load.
    from segstrat.recovery import restore_records

    checkpoint = restore_records(folder)
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


def _lost_counts(folder: Store, record: TrialRecord) -> str:
    """Why the pixel counts of a completed trial are not there, '' if they are, or never were."""
    if record.status is not TrialStatus.COMPLETED:
        return ""
    try:
        counts = read_counts(folder)
    except ValueError as error:
        return str(error)
    # Trials of earlier versions have neither.
    return f"{COUNTS} is missing" if not counts and record.facts.get("constant_miou") else ""


def _with_counts(folder: Store, record: TrialRecord, problem: str) -> tuple[TrialRecord, str]:
    """Lets a worker take the trial again, which makes its pixel counts from the last checkpoint."""
    if not problem:
        return record, ""
    if not _has_checkpoint(folder):
        return record, f"{problem} and no checkpoint is kept: what derives from them stays empty"
    for name in (OUTCOME, RECORDS, COUNTS):
        folder.delete(name)
    return read_record(folder), f"{problem}; they are counted again with the newest good checkpoint"


def _has_checkpoint(folder: Store) -> bool:
    return bool(checkpoint_epochs(folder.names()))
