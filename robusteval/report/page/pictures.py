"""The gallery of a page: the examples that the run keeps in figures/examples, as pictures in the page itself."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from robusteval.report.gallery import factor_of
from robusteval.report.page.material import Material

_LIMIT = 1_600_000
"""Bytes of pictures in a page; what is over is left out, so that the page can be sent by mail."""
_SMALL = 128  # pixels across below which a browser is to show them as squares


def gallery(material: Material) -> dict[str, Any] | None:
    """Return the examples that the run folder holds, spread evenly where all would be too many bytes; None of none."""
    shown = [example for path in _paths(material) if (example := _example(material, path)) is not None]
    total = sum(example["bytes"] for example in shown)
    if total > _LIMIT:
        kept = max(1, int(len(shown) * _LIMIT / total))
        shown = [shown[i] for i in np.linspace(0, len(shown) - 1, kept).round().astype(int)]
    return {"examples": shown} if shown else None


def _paths(material: Material) -> list[Path]:
    return sorted((material.folder / "figures" / "examples").glob("[0-9]*.png"))


def _example(material: Material, path: Path) -> dict[str, Any] | None:
    """Return one example: three pictures and what was said of them; None where its sample is of another run."""
    rows = np.flatnonzero(material.samples["id"].to_numpy() == int(path.stem))
    if not len(rows):
        return None
    sample = {name: material.samples[name][int(rows[0])].as_py() for name in material.samples.column_names}
    with Image.open(path) as strip:
        factor, tile = factor_of(strip), strip.width // 3
        pictures = [_png(strip.crop((k * tile, 0, (k + 1) * tile, strip.height))) for k in range(3)]
    said = [
        {
            "right": sample[f"{part}_prediction"] == sample["label"],
            "name": material.class_name(sample[f"{part}_prediction"]),
            "confidence": sample[f"{part}_confidence"],
        }
        for part in ("clean", "attacked")
    ]
    return {
        "id": sample["id"],
        "label": material.class_name(sample["label"]),
        "stage": sample["broken_by"],
        "linf": sample["distance_linf"],
        "l2": sample["distance_l2"],
        "parameter": sample["attack_parameter"],
        "clean": said[0],
        "attacked": said[1],
        "pictures": pictures,
        "factor": factor,
        "small": tile < _SMALL,
        "size": tile,
        "bytes": sum(map(len, pictures)),
    }


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()
