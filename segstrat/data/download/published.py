"""Downloads the published data sets that have a free mirror, and says how to get the others.

uv run python -m segstrat.data.download voc sbd --root DIR
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT

from segstrat.data.readers import lip, person_part, sbd, voc

_VOC = DATASET_YEAR_DICT["2012"]


@dataclass(frozen=True)
class Archive:
    """A published tar file.

    Args:
        file: its name during the download.
        md5: the digest that torchvision publishes.
        inside: the folder in it that is kept, with the same path under the data root.
    """

    url: str
    file: str
    md5: str
    inside: str


@dataclass(frozen=True)
class Published:
    """A data set: how to recognize it, and how to get it."""

    name: str
    fits: Callable[[Path], bool]
    archive: Archive | None = None
    by_hand: str = ""


DATA_SETS = {
    "voc": Published(
        voc.NAME,
        voc.fits,
        Archive(_VOC["url"], _VOC["filename"], _VOC["md5"], _VOC["base_dir"]),
    ),
    "sbd": Published(
        sbd.NAME,
        sbd.fits,
        Archive(SBDataset.url, SBDataset.filename, SBDataset.md5, "benchmark_RELEASE/dataset"),
    ),
    "cihp": Published(
        lip.NAME,
        lip.fits,
        by_hand="""\
1. Open https://lip.sysuhcp.com/overview.php (Look into Person) and choose the multi-person data set, also
   called CIHP: Crowd Instance-level Human Parsing. The site links to Google Drive and Baidu.
2. Download instance-level_human_parsing (one archive; no digest is published).
3. Unpack it in {root}, so that these exist:
     {root}/instance-level_human_parsing/Training/Images/0000006.jpg
     {root}/instance-level_human_parsing/Training/Category_ids/0000006.png
     {root}/instance-level_human_parsing/Training/train_id.txt      (28,280 ids)
     {root}/instance-level_human_parsing/Validation/val_id.txt      (5,000 ids)
4. Check it: uv run python -m segstrat.data.audit d2 --root {root}""",
    ),
    "person-part": Published(
        person_part.NAME,
        person_part.fits,
        by_hand="""\
1. Open http://liangchiehchen.com/projects/DeepLab.html and download pascal_person_part (labels as index PNGs,
   with its lists of ids; no digest is published).
2. Unpack it in {root}, so that these exist:
     {root}/pascal_person_part/pascal_person_part_gt/2008_000008.png
     {root}/pascal_person_part/pascal_person_part_trainval_list/train_id.txt    (1,716 ids)
     {root}/pascal_person_part/pascal_person_part_trainval_list/val_id.txt      (1,817 ids)
   Or use the original annotation: unpack http://roozbehm.info/pascal-parts/trainval.tar.gz in
   {root}/pascal_person_part, which gives Annotations_Part/*.mat, and put the two lists next to that folder.
3. Check it: uv run python -m segstrat.data.audit d3 --root {root}   (D3 needs SBD as well)""",
    ),
}
"""Name on the command line -> data set."""
