"""Restores a trial's records from its newest good checkpoint, which holds the same facts and reports."""

from segstrat.checkpoint import read_checkpoint
from segstrat.records import parse_records, read_records
from segstrat.store import DamagedFileError, Store, write_object
from segstrat.trial_files import RECORDS, checkpoint_epochs, checkpoint_name


def restore_records(folder: Store) -> str:
    """Replaces a trial's records where a checkpoint holds more epochs than they do.

    Returns:
        name of the checkpoint that they were restored from, '' if there was nothing to restore.
    """
    known = _epochs_on_record(folder)
    for epoch in reversed(checkpoint_epochs(folder.names())):
        state = read_checkpoint(folder, checkpoint_name(epoch))
        if state is None:
            continue
        content = {name: state.get(name) for name in ("facts", "reports")}
        try:
            _, reports = parse_records(content)
        except DamagedFileError:  # of a version whose checkpoints held no facts
            return ""
        if len(reports) <= known:
            return ""
        write_object(folder, RECORDS, content)
        return checkpoint_name(epoch)
    return ""


def _epochs_on_record(folder: Store) -> int:
    try:
        return len(read_records(folder)[1])
    except DamagedFileError:
        return 0
