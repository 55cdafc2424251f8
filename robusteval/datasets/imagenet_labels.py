"""Labels of the flat layout of ILSVRC 2012: four files in circulation, in three different orders of classes.

The numbers of the development kit (1 to 1000) are *not* the order of the models; its meta.mat translates them. Mixing
them up costs all accuracy but one in a thousand.
"""

import csv
import re
import zlib
from pathlib import Path

from robusteval.datasets.names import imagenet_wnids
from robusteval.errors import UserError

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"  # development kit: one number 1..1000 a line
LABEL_FILES = (
    "LOC_val_solution.csv",  # Kaggle: picture, then WordNet id and boxes
    "imagenet_2012_validation_synset_labels.txt",  # one WordNet id a line
    "val.txt",  # Caffe: picture and label 0..999
    GROUND_TRUTH,
)
_PICTURE = re.compile(r"ILSVRC2012_val_(\d{8})")


def find_labels(root: Path, folder: Path) -> Path | None:
    """Return the first file of labels beside or near the pictures, or None. The kit's counts only with its meta.mat."""
    above = [root / place for place in ("ILSVRC2012_devkit_t12/data", "data", ".")]
    near = [folder, folder.parent / "ILSVRC2012_devkit_t12/data", folder.parent / "data", folder.parent]
    for name in LABEL_FILES:
        for place in dict.fromkeys([*near, *above]):
            path = place / name
            if path.is_file() and (name != GROUND_TRUTH or (place / "meta.mat").is_file()):
                return path
    return None


def read_labels(path: Path) -> dict[int, int]:
    """Return label 0..999 (the rank of the WordNet id) by picture number, from 1. Raises UserError naming the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); give the published file of labels") from error
    order = {wnid: label for label, wnid in enumerate(imagenet_wnids())}
    try:
        match path.name:
            case "LOC_val_solution.csv":
                rows = list(csv.reader(text.splitlines()))[1:]
                return {_picture(row[0]): order[row[1].split()[0]] for row in rows if row}
            case "val.txt":
                pairs = [line.split() for line in text.splitlines() if line.strip()]
                return {_picture(name): _in_range(int(label), 0, 999) for name, label in pairs}
            case "ILSVRC2012_validation_ground_truth.txt":
                kit = _kit_order(path.with_name("meta.mat"), order)
                return {i: kit[_in_range(int(line), 1, 1000)] for i, line in enumerate(text.split(), 1)}
            case _:
                return {i: order[line] for i, line in enumerate(text.split(), 1)}
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{path} is not the published file of labels ({error}); fetch it again") from error


def _kit_order(meta: Path, order: dict[str, int]) -> dict[int, int]:
    """Return our label by the development kit's number; its meta.mat lists (number, WordNet id, ...)."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        return {int(row["ILSVRC2012_ID"]): order[str(row["WNID"])] for row in synsets if str(row["WNID"]) in order}
    except (OSError, KeyError, ValueError, TypeError, IndexError, zlib.error, MatReadError) as error:
        raise UserError(f"{meta} is not the development kit's meta.mat ({error}); fetch it again") from error


def _picture(name: str) -> int:
    match = _PICTURE.search(name)
    if match is None:
        raise ValueError(f"{name} names no picture")
    return int(match[1])


def _in_range(value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise ValueError(f"{value} is not between {low} and {high}")
    return value
