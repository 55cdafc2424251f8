"""The page of a folder of runs: all of them side by side, the same images and threat together."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from robusteval.evidence import atomic
from robusteval.evidence.folder import RunFolder
from robusteval.report.flags import flagged
from robusteval.report.page.html import render
from robusteval.report.words import largest, threat_in_words


def write(directory: Path, runs: Sequence[tuple[RunFolder, dict[str, Any]]], incomplete: int) -> Path:
    """Write the page of complete runs with their results into ``directory`` and return its path."""
    target = directory / "report.html"
    atomic.write(target, page(directory, runs, incomplete).encode())
    return target


def page(directory: Path, runs: Sequence[tuple[RunFolder, dict[str, Any]]], incomplete: int) -> str:
    """Return the page of complete runs: a table of all, and a ranking wherever images and threat are the same."""
    rows = [_row(directory, run, results) for run, results in runs]
    rows.sort(key=lambda row: (*row["group"], -(row["robust"]["value"] or 0.0), row["model"]))
    groups = [
        {"title": f"{dataset}, {n} images, {threat}", "rows": list(members)}
        for (dataset, n, _, threat, _), members in groupby(rows, key=lambda row: row["group"])
    ]
    return render(
        "folder.html",
        title=f"Runs in {directory.resolve().name}",
        rows=rows,
        groups=groups,
        incomplete=incomplete,
        flagged=any(row["flagged"] for row in rows),
    )


def _row(directory: Path, run: RunFolder, results: dict[str, Any]) -> dict[str, Any]:
    threat = threat_in_words(results["threat"])
    dataset, n = results["dataset"]["name"], results["robust"]["accuracy"]["n"]
    return {
        "group": (dataset, n, largest(results["threat"]["eps"]) or 0.0, threat, results["dataset"]["digest"]),
        "link": run.report.relative_to(directory).as_posix() if run.report.is_file() else None,
        "model": results["model"]["name"],
        "attack": results["attack"]["name"],
        "dataset": dataset,
        "threat": threat,
        "n": n,
        "clean": results["clean"]["accuracy"],
        "robust": results["robust"]["accuracy"],
        "clean_ece": results["clean"]["calibration"]["ece"],
        "attacked_ece": results["attacked"]["calibration"]["ece"],
        "passes": results["cost"]["forward_passes"] + results["cost"]["backward_passes"],
        "seconds": results["cost"]["seconds"],
        "flagged": flagged(results),
    }
