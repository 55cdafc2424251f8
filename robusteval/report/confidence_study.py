"""The report of ``experiment=confidence_study``: how sure networks are of right and wrong answers, clean and attacked.

A table and a figure over runs of several networks on the same images, each under several attacks with the same budget
(Grabinski et al. 2022, https://arxiv.org/abs/2210.05938). Everything follows from the runs' samples.parquet.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from robusteval.errors import UserError
from robusteval.evidence import atomic
from robusteval.evidence.folder import RunFolder
from robusteval.metrics.confidence import aurc, fpr_at
from robusteval.metrics.detection import detection
from robusteval.metrics.overconfidence import difference, measured
from robusteval.metrics.perturbation import number_of
from robusteval.metrics.predictions import Predictions, Prefix
from robusteval.report.confidence_console import show
from robusteval.report.confidence_figure import draw_study
from robusteval.report.rows import as_csv, as_markdown
from robusteval.report.words import number, threat_in_words

CLEAN = "clean"
COMPARED = ("gap", "overconfidence", "ece")
_WORDS = {
    "accuracy": "accuracy",
    "confidence": "mean confidence",
    "gap": "confidence - accuracy",
    "overconfidence": "overconfidence",
    "underconfidence": "underconfidence",
    "ece": "ECE",
    "error_auroc": "AUROC of errors",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """The answers of one network under one condition: ``clean`` or the name of an attack; ``ids`` [n] of the images."""

    model: str
    condition: str
    answers: Predictions
    ids: np.ndarray


def write(folders: Sequence[Path], target: Path) -> Path:
    """Write results.json, table.md, table.csv and confidence.png of a study into ``target``, and print the tables.

    Raises UserError where the runs are not on the same images, or not all under one threat.
    """
    runs = [RunFolder.open(folder) for folder in folders]
    sides = sides_of(runs)
    study = describe(sides, seed=runs[0].run["seed"])
    study["threat"], study["runs"] = runs[0].run["threat"], [run.path.name for run in runs]
    columns, rows = _table(study)
    text = as_markdown(columns, rows, right=columns[2:])
    said = "\n".join(study["verdicts"])
    threat = threat_in_words(runs[0].run["threat"])
    note = (
        "Overconfidence is E[confidence | wrong], underconfidence E[1 - confidence | right]; brackets are 95 % "
        "intervals over images. Under attack the image kept is the one of highest loss inside the budget."
    )
    page = f"# Confidence under attack ({threat})\n\n{text}\n{note}\n\n{said}\n"
    atomic.write(target / "results.json", atomic.to_json(study))
    atomic.write(target / "table.md", page.encode())
    atomic.write(target / "table.csv", as_csv(*_flat(study)).encode())
    draw_study(target / "confidence.png", sides, study)
    show(study)
    return target


def sides_of(runs: Sequence[RunFolder]) -> list[Side]:
    """Return every network's answers, first on the clean images and then on those of each attack."""
    first, found = runs[0].run, {}
    for run in runs:
        facts = run.run
        if facts["digests"]["dataset"] != first["digests"]["dataset"]:
            raise UserError(
                f"{run.path} and {runs[0].path} are on other images, so their networks cannot be compared; name one "
                "dataset for all of them"
            )
        if facts["threat"] != first["threat"]:
            raise UserError(f"{run.path} and {runs[0].path} have different threats; name one by threat=...")
        table, model, classes = run.samples(), facts["model"]["name"], facts["model"]["classes"]
        sides: tuple[tuple[str, Prefix], ...] = ((CLEAN, "clean"), (facts["attack"]["name"], "attacked"))
        for condition, prefix in sides:
            key = (model, condition)
            found.setdefault(key, _side(model, condition, table, prefix, classes))
    models = list(dict.fromkeys(model for model, _ in found))
    return [side for model in models for side in found.values() if side.model == model]


def _side(model: str, condition: str, table: pa.Table, prefix: Prefix, classes: int) -> Side:
    answers = Predictions.from_samples(table, prefix, classes)
    return Side(model=model, condition=condition, answers=answers, ids=table["id"].to_numpy())


def describe(sides: Sequence[Side], seed: int) -> dict[str, Any]:
    """Return {sides, detection, differences, verdicts} in plain numbers.

    ``differences`` are those of each network but the first from the first one, under the same condition: negative where
    it is less overconfident.
    """
    clean = {side.model: side.answers for side in sides if side.condition == CLEAN}
    rows = [
        {"model": side.model, "condition": side.condition, "n": len(side.answers), **measured(side.answers, seed),
         "ranking": _ranking(side.answers)}
        for side in sides
    ]  # fmt: skip
    detected = [
        {"model": side.model, "condition": side.condition, "scores": detection(clean[side.model], side.answers)}
        for side in sides
        if side.condition != CLEAN
    ]
    differences = []
    base, *others = clean
    there = {(side.model, side.condition): side.answers for side in sides}
    for (model, condition), answers in there.items():
        if model in others and (base, condition) in there:
            apart = {name: difference(answers, there[base, condition], name, seed) for name in COMPARED}
            differences.append({"model": model, "from": base, "condition": condition, **apart})
    return {"sides": rows, "detection": detected, "differences": differences,
            "verdicts": [sentence(row) for row in differences]}  # fmt: skip


def _ranking(answers: Predictions) -> dict[str, float | None]:
    kept = answers.finite()
    right, both = kept.correct, bool(kept.correct.any() and not kept.correct.all())
    return {
        "fpr95": number_of(fpr_at(kept.confidences, right, 0.95)) if both else None,
        "aurc": number_of(aurc(kept.confidences, right)) if len(kept) else None,
    }


def sentence(row: dict[str, Any]) -> str:
    """Return in a sentence whether a network is less overconfident than another, by what its interval allows to say."""
    said = []
    for name, words in (("gap", "confidence less accuracy"), ("overconfidence", "confidence of wrong answers")):
        found = row[name]
        if found["value"] is None or found["low"] is None:
            said.append(f"{words}: not to be told")
            continue
        verdict = "lower" if found["high"] < 0 else "higher" if found["low"] > 0 else "no difference to be told"
        said.append(f"{words} {found['value']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}] ({verdict})")
    return f"{row['model']} against {row['from']}, {row['condition']}: {'; '.join(said)}"


def _table(study: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    columns = ["model", "images", "n", *_WORDS.values(), "FPR95", "AURC", "attack seen by (MSP, energy)"]
    detected = {(row["model"], row["condition"]): row["scores"] for row in study["detection"]}
    rows = []
    for side in study["sides"]:
        scores = {row["score"]: row for row in detected.get((side["model"], side["condition"]), ())}
        seen = " ".join(_bracketed(scores[name]) for name in ("msp", "energy")) if scores else ""
        ranking = [number(side["ranking"][name]) for name in ("fpr95", "aurc")]
        numbers = [_bracketed(side[name]) for name in _WORDS]
        rows.append([side["model"], side["condition"], str(side["n"]), *numbers, *ranking, seen])
    return columns, rows


def _bracketed(found: dict[str, Any]) -> str:
    if found["value"] is None:
        return number(None)
    ends = "" if found["low"] is None else f" [{number(found['low'])}, {number(found['high'])}]"
    return number(found["value"]) + ends


def _flat(study: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return one row a number: model, condition, quantity, value, low, high."""
    columns = ["model", "condition", "quantity", "value", "low", "high"]
    rows = []
    for side in study["sides"]:
        for name in _WORDS:
            rows.append({"model": side["model"], "condition": side["condition"], "quantity": name, **side[name]})
        for name, value in side["ranking"].items():
            rows.append({"model": side["model"], "condition": side["condition"], "quantity": name, "value": value})
    for row in study["detection"]:
        for score in row["scores"]:
            ends = {end: score[end] for end in ("value", "low", "high")}
            rows.append({**_named(row), "quantity": f"detection_{score['score']}", **ends})
    for row, name in itertools.product(study["differences"], COMPARED):
        rows.append({**_named(row), "quantity": f"{name} less that of {row['from']}", **row[name]})
    return columns, [{column: row.get(column) for column in columns} for row in rows]


def _named(row: dict[str, Any]) -> dict[str, str]:
    return {"model": row["model"], "condition": row["condition"]}
