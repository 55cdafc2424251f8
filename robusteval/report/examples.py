"""Examples for the gallery: the first images that an attack broke, with what is kept of their adversarials."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from robusteval.attacks.base import Attack
from robusteval.datasets.base import Dataset
from robusteval.evidence import images
from robusteval.evidence.folder import RunFolder
from robusteval.report.gallery import Example

SHOWN = 8


def examples(run: RunFolder, samples: pa.Table, dataset: Dataset, attack: Attack) -> list[Example]:
    """Return up to eight broken images, spread over the dataset, whose attacked version is kept or made again."""
    broken = np.flatnonzero(
        samples["clean_correct"].to_numpy(zero_copy_only=False) & ~samples["robust"].to_numpy(zero_copy_only=False)
    )
    attacked = dict(_made_again(broken, samples, dataset, attack) if attack.parametric else _kept(run, broken, samples))
    rows = sorted(attacked)
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).round().astype(int)] if rows else []
    names = run.run["model"]["class_names"]
    shown = []
    for row in rows:
        sample = {name: samples[name][row].as_py() for name in _COLUMNS}
        shown.append(
            Example(
                id=sample["id"],
                label=sample["label"],
                clean=dataset.images([row])[0].numpy(),
                attacked=attacked[row].numpy(),
                clean_prediction=sample["clean_prediction"],
                attacked_prediction=sample["attacked_prediction"],
                clean_confidence=sample["clean_confidence"],
                attacked_confidence=sample["attacked_confidence"],
                class_names=None if names is None else tuple(names),
            )
        )
    return shown


_COLUMNS = (
    "id",
    "label",
    "clean_prediction",
    "attacked_prediction",
    "clean_confidence",
    "attacked_confidence",
)


def _made_again(
    broken: np.ndarray, samples: pa.Table, dataset: Dataset, attack: Attack
) -> Iterator[tuple[int, Tensor]]:
    chosen = (
        broken[np.linspace(0, len(broken) - 1, min(SHOWN, len(broken))).round().astype(int)] if len(broken) else broken
    )
    for row in chosen.tolist():
        parameter = torch.tensor([samples["attack_parameter"][row].as_py()], dtype=torch.float32)
        yield row, attack.apply(dataset.images([row]), parameter)[0]


def _kept(run: RunFolder, broken: np.ndarray, samples: pa.Table) -> Iterator[tuple[int, Tensor]]:
    """Yield the kept adversarials of the first files: enough for the gallery, without reading all."""
    place = {(samples["broken_by"][row].as_py(), samples["id"][row].as_py()): row for row in broken.tolist()}
    found = 0
    for stage, _, path in images.every(run):
        if found >= 4 * SHOWN:
            return
        for sample, image in zip(*images.read(path), strict=True):
            if (stage, int(sample)) in place:
                found += 1
                yield place[stage, int(sample)], image
