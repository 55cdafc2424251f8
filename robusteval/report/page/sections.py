"""The sections of a run's page, in their order: what each shows, in plain values for its template.

A new one is a function here or in a file of its own, a template of the same name in ``templates/sections``, and a line
in ``SECTIONS``.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from robusteval.report.console import CALIBRATION, CONFIDENCE
from robusteval.report.page import charts
from robusteval.report.page.material import Material, Section
from robusteval.report.page.perturbation import perturbation
from robusteval.report.page.pictures import gallery
from robusteval.report.parameters import parameter_of
from robusteval.report.words import largest, number, percent, point_in_words, points, radius

FEW = 20
"""Up to so many classes are shown at once, and of more only the worst until a reader asks."""


def rates(material: Material) -> dict[str, Any]:
    results = material.results
    clean, robust = results["clean"], results["robust"]
    rows = [("clean accuracy", clean["accuracy"], "clean")]
    if "top5" in clean:
        rows.append(("clean accuracy, top 5", clean["top5"], "clean"))
    rows.append(("robust accuracy", robust["accuracy"], "attacked"))
    if robust["attack_success"]["n"]:
        success = {**robust["attack_success"], "value": robust["attack_success_rate"]}
        rows.append(("attack success rate", {**success, "correct": success["broken"]}, "ink"))
    if worst := (results.get("survey") or {}).get("worst"):
        rows.append((f"worst single number ({worst['parameter']:.3g})", worst, "attacked"))
    return {"rows": rows, "nonfinite": robust.get("nonfinite", 0)}


def stages(material: Material) -> dict[str, Any] | None:
    robust, n = material.results["robust"], material.results["robust"]["accuracy"]["n"]
    if not n or not robust["by_stage"]:
        return None
    right = robust["attack_success"]["n"]
    rows = [{"stage": "wrong without attack", "entered": n, "broken": n - right, "begin": 1.0, "end": right / n}]
    left = right
    for stage in robust["by_stage"]:
        rows.append({**stage, "begin": left / n, "end": (left - stage["broken"]) / n})
        left -= stage["broken"]
    return {"rows": rows, "left": left, "n": n}


def over_eps(material: Material) -> dict[str, Any] | None:
    results = material.results
    found, threat = results["robust"].get("curve"), results["threat"]
    if not found:
        return None
    quoted = next(point for point in found if point["eps"] == largest(threat["eps"]))
    clean = results["clean"]["top5" if threat["goal"] == "top5" else "accuracy"]
    label = (
        f"Robust accuracy over eps, from {percent(found[0]['value'])} at {radius(found[0]['eps'])} to "
        f"{percent(found[-1]['value'])} at {radius(found[-1]['eps'])}"
    )
    drawn = charts.curve(
        found,
        key="eps",
        levels={"clean": clean["value"]},
        marked=quoted["eps"],
        x_label=f"eps ({threat['norm']})",
        colour="attacked",
        label=label,
    )
    return {"chart": drawn, "quoted": quoted, "clean": clean, "rows": found}


def survey(material: Material) -> dict[str, Any] | None:
    found = material.results.get("survey")
    if not found or found["worst"] is None:
        return None
    clean, each, worst = material.results["clean"]["accuracy"], found["per_image"], found["worst"]
    levels = {"clean": clean["value"], "worst": each["value"]}
    universal = charts.curve(
        found["universal"],
        key="parameter",
        levels=levels,
        marked=worst["parameter"],
        x_label=parameter_of(material.results["attack"]["name"]),
        colour="clean",
        label=f"Accuracy over one number for all images, lowest {percent(worst['value'])}",
    )
    tries = [
        {**row, "low": max(0.0, row["value"] - 2 * row["se"]), "high": min(1.0, row["value"] + 2 * row["se"])}
        for row in found.get("random", ())
    ]
    random = tries and charts.curve(
        tries,
        key="tries",
        levels=levels,
        marked=10,
        x_label="random numbers tried for each image",
        colour="attacked",
        label=f"Expected accuracy of the random search, {percent(tries[-1]['value'])} after {tries[-1]['tries']} tries",
    )
    ten = next((row for row in tries if row["tries"] == 10), None)
    return {"universal": universal, "random": random, "ten": ten, "worst": worst, "each": each, "clean": clean,
            "exhaustive": found["exhaustive"]}  # fmt: skip


def classes(material: Material) -> dict[str, Any] | None:
    results = material.results
    robust = sorted(results["robust"]["per_class"], key=lambda row: (row["value"], row["class"]))
    if len(robust) < 2:
        return None
    clean = {row["class"]: row for row in results["clean"]["per_class"]}
    rows = [
        {"class": row["class"], "name": str(row.get("name", row["class"])), "robust": row, "clean": clean[row["class"]]}
        for row in robust
    ]
    return {"rows": rows, "few": FEW, "robust": results["robust"]["disparity"], "clean": results["clean"]["disparity"]}


def calibration(material: Material) -> dict[str, Any]:
    sides = []
    for part, said in _sides(material):
        found = material.results[part]["calibration"]
        label = f"Reliability diagram of {said}: expected calibration error {number(found['ece'])}, n = {found['n']}"
        drawn = charts.reliability(found["reliability"], part, label)
        sides.append({"title": said, "chart": drawn, "ece": found["ece"], "n": found["n"], "seen": _gap(found)})
    return {"sides": sides, "rows": _rows(material, "calibration", CALIBRATION)}


def _gap(found: Mapping[str, Any]) -> str:
    gap = found["confidence_gap"]
    if gap is None:
        return "No image has finite logits."
    way = "more confident than right" if gap > 0 else "less confident than right"
    return f"On average {points(abs(gap)).lstrip('+')} points {way}."


def confidence(material: Material) -> dict[str, Any]:
    label = material.samples["label"].to_numpy()
    groups = {}
    for part, _ in _sides(material):
        values = material.samples[f"{part}_confidence"].to_numpy()
        right = material.samples[f"{part}_prediction"].to_numpy() == label
        finite = np.isfinite(values)
        groups[part] = (values[right & finite], values[~right & finite])
    most = charts.most_in_a_bin(*(group for pair in groups.values() for group in pair))
    sides = []
    for part, said in _sides(material):
        right, wrong = groups[part]
        auroc = material.results[part]["confidence"]["auroc"]
        label = f"Histogram of confidence on {said}: {len(right)} right answers and {len(wrong)} wrong ones"
        drawn = charts.confidences(right, wrong, most, label)
        sides.append({"title": said, "chart": drawn, "right": len(right), "wrong": len(wrong), "auroc": auroc})
    return {"sides": sides, "rows": _rows(material, "confidence", CONFIDENCE)}


def _sides(material: Material) -> tuple[tuple[str, str], ...]:
    point = point_in_words(material.results["attacked"]["point"])
    return ("clean", "clean images"), ("attacked", f"attacked images ({point})")


def _rows(material: Material, part: str, names: tuple[tuple[str, str], ...]) -> list[dict[str, Any]]:
    clean, attacked = (material.results[side][part] for side in ("clean", "attacked"))
    return [{"name": words, "clean": clean.get(key), "attacked": attacked.get(key)} for key, words in names]


def checks(material: Material) -> dict[str, Any] | None:
    found = material.results["checks"]
    by_verdict = {name: [check for check in found if check["verdict"] == name] for name in ("fail", "warn")}
    quiet = [check for check in found if check["verdict"] not in by_verdict]
    return {"loud": [*by_verdict["fail"], *by_verdict["warn"]], "quiet": quiet} if found else None


def parts(material: Material) -> dict[str, Any] | None:
    found = material.results.get("parts")
    return {"rows": found} if found else None


def cost(material: Material) -> dict[str, Any]:
    found, n = material.results["cost"], material.results["robust"]["accuracy"]["n"]
    return {"cost": found, "each": (found["forward_passes"] + found["backward_passes"]) / n if n else None}


def reproduce(material: Material) -> dict[str, Any]:
    results, facts = material.results, material.facts
    provenance = results["provenance"]
    digests, packages = facts.get("digests", {}), provenance.get("packages", {})
    options = {f"attack.{key}": value for key, value in results["attack"].items() if key != "name"}
    made = {
        "made": provenance.get("created"),
        "fingerprint": results["fingerprint"],
        "seed": results.get("seed"),
        "weights": digests.get("model"),
        "images": digests.get("dataset"),
        "preprocessing": digests.get("preprocessing"),
        "robusteval": provenance.get("robusteval"),
        "commit": provenance.get("git"),
        "Python": provenance.get("python"),
        **packages,
        "platform": provenance.get("platform"),
        "device": provenance.get("device"),
        "processor": provenance.get("cpu_capability"),
    }
    return {
        "command": provenance.get("command", "robusteval"),
        "folder": material.folder.name,
        "merged": "parts" in results,
        "facts": {key: value for key, value in (options | made).items() if value is not None},
    }


SECTIONS = [
    Section("rates", "Accuracy", rates),
    Section("stages", "What broke the images", stages),
    Section("over_eps", "Robust accuracy over eps", over_eps),
    Section("survey", "One number at a time", survey),
    Section("perturbation", "What the perturbations look like", perturbation),
    Section("parts", "The attacks of this merge", parts),
    Section("classes", "Class by class", classes),
    Section("calibration", "Calibration", calibration),
    Section("confidence", "Confidence as a detector of errors", confidence),
    Section("gallery", "Examples", gallery),
    Section("checks", "Checks", checks),
    Section("cost", "Cost", cost),
    Section("reproduce", "Reproduce and verify", reproduce),
]
