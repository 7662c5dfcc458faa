"""What a resumed study does with a trial whose files are damaged: nothing of it is lost but its own time."""

from segstrat.store import Store
from segstrat.trial_files import RECORDS, checkpoint_epochs
from segstrat.trial_record import OUTCOME, TrialRecord, read_record


def recover_record(folder: Store) -> tuple[TrialRecord, str]:
    """Reads a trial's files and repairs what is damaged, so that the trial can be finished.

    Records are restored from the newest good checkpoint; an outcome that cannot be read, or that the records
    do not support, is deleted, to be decided again.

    Returns:
        the record, and one sentence about what was done, '' where nothing was damaged.
    """
    record = read_record(folder)
    problem = record.problem
    if not problem:
        return record, ""
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
    if record.all_reports or checkpoint_epochs(folder.names()):
        return record, f"{problem}; the trial continues after its newest good checkpoint"
    return record, f"{problem}; the trial is trained again"
