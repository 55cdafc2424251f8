"""The section on what the perturbations look like: border, frequencies, channels, rounding."""

import base64
from typing import Any

from robusteval.report.page.material import Material


def perturbation(material: Material) -> dict[str, Any] | None:
    """Return the numbers of a run's perturbations and their figure; only a ``reason`` where there are none."""
    found = material.results.get("perturbation")
    if found is None:
        return None
    if not found["n"]:
        return {"reason": found["reason"]}
    sides = [("perturbation", found["border"])]
    if "saliency" in found:
        sides += [(f"input gradient, {side}", found["saliency"][side]["border"]) for side in ("clean", "attacked")]
    file = material.folder / "figures" / "perturbation.png"
    return {
        "reason": None,
        "found": found,
        "border": [{"of": name, "infinite": "infinite" in row["ratio"], **row} for name, rows in sides for row in rows],
        "salient": found.get("saliency", {}).get("n", 0),
        "picture": base64.b64encode(file.read_bytes()).decode() if file.is_file() else None,
    }
