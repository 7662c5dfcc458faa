"""The default name of a study: its space and its data."""

import re
import unicodedata

from segstrat.store import Store, data_root
from study.cli import Flags
from study.driver.resumed import studies_of
from study.planning.settings import StudySettings

OWN_DATA = "folder"
MOST_CHARACTERS = 60


def default_name(flags: Flags, space: str) -> str:
    """The name of a study without `--name`: `wd_grid-figures`, or `wd_grid-my-cats` on images of one's own.

    Args:
        space: label of its space.

    Raises:
        UserError: if images of one's own have no readable `dataset.toml`.
    """
    data = flags.data or StudySettings.data
    if data != OWN_DATA:
        return f"{space}-{data}"
    if flags.resume and flags.data_root is None:
        # The manifest has the data root, so it need not be given again.
        found = studies_of(Store(flags.storage), space, OWN_DATA)
        if len(found) == 1:
            return found[0]
    root = data_root(flags.data_root)
    if flags.resume and root is None:
        # No such study, or several: the message about it names them.
        return f"{space}-{OWN_DATA}"
    # Imported here: it needs Pillow and NumPy.
    from segstrat.data.readers import folder

    return f"{space}-{folder_name(folder.read(root).name)}"


def folder_name(title: str) -> str:
    """A data set's name as a part of a folder's name: lower case letters, digits, '-', '_' and '.'."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9._-]+", "-", plain)
    return words.strip("-_.")[:MOST_CHARACTERS].rstrip("-_.") or OWN_DATA
