"""What padding does to robustness: accuracy by padding mode under each attack, paired differences between modes, and
how much of the perturbations lies on the border.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from robusteval.evidence import atomic
from robusteval.evidence.folder import RunFolder
from robusteval.metrics.accuracy import rate
from robusteval.metrics.paired import counts, difference, mcnemar, score_interval
from robusteval.report.console import terminal
from robusteval.report.rows import as_markdown
from robusteval.report.words import NOTHING, percent, radius

CLEAN, WORST = "none (clean)", "worst of all"
SEEDS = (
    "Each cell is one network, and the intervals are about images: networks trained alike but for the seed may differ "
    "by more than the paddings do"
)
BORDER = "mean absolute perturbation on the outermost pixels, over that of the rest"
_ORDER = ("zeros", "reflect", "replicate", "circular", "nopad")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Which images [n], by ``ids``, one network stood at one radius of one attack."""

    training: str
    mode: str
    attack: str
    norm: str
    eps: float | None
    ids: np.ndarray
    right: np.ndarray

    @property
    def row(self) -> tuple[str, str, str, float]:
        """Everything but the padding: what the modes are compared under."""
        return self.training, self.norm, self.attack, self.eps or 0.0


def report(runs: Sequence[Path]) -> list[Path]:
    """Print the tables of the complete ones among ``runs``, write them beside the runs, and return the files.

    Robust accuracy of every mode under every attack, norm and radius, and of all attacks of a norm together (an image
    counts where it stood all of them); and by how much each mode differs from the first, on the same images, with the
    95 % score interval of paired rates and McNemar's p; then the border ratio of what each attack added to the images.
    """
    complete = [RunFolder(path) for path in runs if RunFolder(path).complete]
    console = terminal()
    if len(complete) < len(runs):
        console.print(f"{len(complete)} of {len(runs)} runs are complete; the same command goes on with the others")
    if not complete:
        return []
    found = table(complete)
    modes = [mode for mode in _ORDER if any(mode in row["modes"] for row in found)]
    border = border_ratios(complete)
    tables = {
        "accuracy by padding": _rates(found, modes),
        f"points more than with {modes[0]}, and the 95 % interval over the shared images": _differences(found, modes),
        BORDER: _borders(border, modes),
    }
    for title, (columns, rows) in tables.items():
        shown = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0, title=title, title_justify="left")
        for number, name in enumerate(columns):
            shown.add_column(name, justify="left" if number < 3 else "right", no_wrap=True)
        for row in rows:
            shown.add_row(*map(escape, row))
        console.print(shown)
    console.print(SEEDS)
    folder = complete[0].path.parent
    text = "\n".join(
        f"## {title[0].upper()}{title[1:]}\n\n{as_markdown(columns, rows, right=columns[3:])}"
        for title, (columns, rows) in tables.items()
    )
    files = [folder / "padding_study.json", folder / "padding_study.md"]
    atomic.write(files[0], atomic.to_json({"rows": found, "border": border}))
    atomic.write(files[1], f"# What padding does to robustness\n\n{text}\n{SEEDS}\n".encode())
    console.print(f"written: {files[0]}, {files[1]}", soft_wrap=True)
    return files


def table(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Return a row for every training, norm, attack and radius, with the rate of each mode and its difference."""
    cells = [cell for run in runs for cell in _cells(run)]
    grouped: dict[tuple[str, str, str, float], dict[str, Cell]] = {}
    for cell in [*cells, *_worst(cells)]:
        grouped.setdefault(cell.row, {}).setdefault(cell.mode, cell)
    rows = []
    for row in sorted(grouped, key=_place):
        by_mode = {mode: grouped[row][mode] for mode in _ORDER if mode in grouped[row]}
        first = next(iter(by_mode.values()))
        modes = {mode: {**rate(cell.right), **_paired(cell, first)} for mode, cell in by_mode.items()}
        training, norm, attack, eps = row
        rows.append({"training": training, "norm": norm, "eps": eps, "attack": attack, "modes": modes})
    return rows


def border_ratios(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Return a row for every training, threat and attack, with the border ratio of each mode's perturbations.

    It is the mean absolute perturbation on the outermost ring of pixels over that of the rest, {value, low, high}, as
    in each run's results; a run that kept no adversarials has none.
    """
    grouped: dict[tuple[Any, ...], dict[str, Any]] = {}
    for run in runs:
        config = OmegaConf.load(run.path / "config.yaml")
        rings = run.results()["perturbation"].get("border", [])
        kind = "adversarial" if config.model.adversarial else "standard"
        row = (kind, run.run["threat"]["norm"], max(_radii(run)), run.run["attack"]["name"])
        grouped.setdefault(row, {})[str(config.model.mode)] = next((ring["ratio"] for ring in rings), None)
    return [
        {"training": row[0], "norm": row[1], "eps": row[2], "attack": row[3], "modes": grouped[row]}
        for row in sorted(grouped, key=lambda row: _place((row[0], row[1], row[3], row[2])))
    ]


def _radii(run: RunFolder) -> list[float]:
    eps = run.run["threat"]["eps"]
    return eps if isinstance(eps, list) else [eps]


def _cells(run: RunFolder) -> Iterator[Cell]:
    """Yield what a run says: clean, and at each of its radii."""
    config = OmegaConf.load(run.path / "config.yaml")
    samples = run.samples()
    flags = {name: samples[name].to_numpy(zero_copy_only=False) for name in ("clean_correct", "robust")}
    broken_at = samples["broken_at_eps"].to_numpy(zero_copy_only=False).astype(np.float64)
    kind = "adversarial" if config.model.adversarial else "standard"
    shared = {"training": kind, "mode": str(config.model.mode), "ids": samples["id"].to_numpy()}
    yield Cell(attack=CLEAN, norm="", eps=None, right=flags["clean_correct"], **shared)
    norm = run.run["threat"]["norm"]
    for eps in _radii(run):
        fell = flags["clean_correct"] & ~flags["robust"] & (broken_at <= eps)
        right = flags["clean_correct"] & ~fell
        yield Cell(attack=run.run["attack"]["name"], norm=norm, eps=eps, right=right, **shared)


def _worst(cells: Sequence[Cell]) -> Iterator[Cell]:
    """Yield for each network, norm and radius which images stood all attacks, where there are several."""
    together: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        if cell.eps is not None:
            together.setdefault((cell.training, cell.mode, cell.norm, cell.eps), []).append(cell)
    for (training, mode, norm, eps), several in together.items():
        if len(several) > 1 and all(np.array_equal(one.ids, several[0].ids) for one in several):
            right = np.logical_and.reduce([one.right for one in several])
            yield Cell(training=training, mode=mode, norm=norm, eps=eps, attack=WORST, ids=several[0].ids, right=right)


def _paired(cell: Cell, first: Cell) -> dict[str, Any]:
    """Return how a mode differs from the first on the same images; nothing of the first, or of other images."""
    if cell is first or not np.array_equal(cell.ids, first.ids):
        return {}
    c = counts(cell.right, first.right)
    low, high = score_interval(c)
    against = {"against": first.mode, "value": float(np.asarray(difference(c))), "low": low, "high": high}
    return {"difference": {**against, "p": mcnemar(c)}}


def _place(row: tuple[str, str, str, float]) -> tuple[Any, ...]:
    training, norm, attack, eps = row
    return training != "standard", {"": 0, "linf": 1, "l2": 2}.get(norm, 3), eps, attack == WORST, attack


def _named(row: dict[str, Any]) -> list[str]:
    return [row["training"], f"{row['norm']} {radius(row['eps'])}" if row["norm"] else "", row["attack"]]


def _rates(rows: Sequence[dict[str, Any]], modes: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    columns = ["training", "budget", "attack", *modes, "n"]
    lines = []
    for row in rows:
        cells = [percent(row["modes"][mode]["value"]) if mode in row["modes"] else NOTHING for mode in modes]
        lines.append([*_named(row), *cells, str(next(iter(row["modes"].values()))["n"])])
    return columns, lines


def _differences(rows: Sequence[dict[str, Any]], modes: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    return ["training", "budget", "attack", *modes[1:]], [
        [*_named(row), *(_difference(row["modes"].get(mode, {}).get("difference")) for mode in modes[1:])]
        for row in rows
    ]


def _difference(found: dict[str, Any] | None) -> str:
    if found is None:
        return NOTHING
    return f"{100 * found['value']:+.1f} ({100 * found['low']:+.1f}, {100 * found['high']:+.1f})"


def _borders(rows: Sequence[dict[str, Any]], modes: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    lines = []
    for row in rows:
        up_to = [row["training"], f"{row['norm']} {radius(row['eps'])}", row["attack"]]
        lines.append([*up_to, *(_ratio(row["modes"].get(mode)) for mode in modes)])
    return ["training", "up to", "attack", *modes], lines


def _ratio(found: dict[str, Any] | None) -> str:
    if found is not None and found.get("infinite"):
        return "infinite"  # all of it lies there
    if found is None or None in (found["value"], found["low"], found["high"]):
        return NOTHING
    return f"{found['value']:.2f} ({found['low']:.2f}–{found['high']:.2f})"
