"""What a sink sends of a finished run, in plain Python values: numbers, tables, pictures. Knows no sink."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import OmegaConf

from robusteval.report.flags import dagger
from robusteval.report.words import interval, percent

Scalar = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A table: column names, and rows of plain values (None where there is no number)."""

    columns: list[str]
    rows: list[list[Scalar]]


def results(folder: Path) -> dict[str, Any]:
    """Return results.json of a finished run."""
    return json.loads((folder / "results.json").read_text())


def config(folder: Path) -> dict[str, Any]:
    """Return the resolved configuration of the run, and under ``provenance`` where and with what it ran."""
    written = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")))
    return {**written, "provenance": results(folder)["provenance"]}


def numbers(values: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return every single value of results.json under its path, joined by ``/``; None is left out, lists are tables.

    And robust accuracy in words, with its interval, and a dagger where a check failed.
    """
    sent = {key: value for key, value in values.items() if key not in ("sinks", "provenance")}
    found = {path: value for path, value in _leaves(sent) if value is not None and not isinstance(value, list)}
    robust = values["robust"]["accuracy"]
    # A chart shows a number alone; this one says whether a check failed.
    return {**found, "robust/accuracy/in_words": f"{percent(robust['value'])}{dagger(values)} ({interval(robust)})"}


def tables(values: Mapping[str, Any]) -> dict[str, Rows]:
    """Return every list of results.json (per class, by stage, reliability, checks ...) as a table under its path."""
    sent = {key: value for key, value in values.items() if key not in ("sinks", "provenance")}
    return {path: _table(value) for path, value in _leaves(sent) if isinstance(value, list) and value}


def samples(folder: Path, rows: int) -> Rows:
    """Return the single-valued columns of samples.parquet, at most ``rows`` rows, evenly spread over the plan."""
    schema = pq.read_schema(folder / "samples.parquet")
    columns = [field.name for field in schema if not pa.types.is_fixed_size_list(field.type)]
    table = pq.read_table(folder / "samples.parquet", columns=columns)
    if table.num_rows > rows:
        table = table.take(np.linspace(0, table.num_rows - 1, rows).round().astype(np.int64))
    values = [table[name].to_pylist() for name in columns]
    return Rows(columns=columns, rows=[[_plain(value) for value in row] for row in zip(*values, strict=True)])


def figures(folder: Path) -> dict[str, Path]:
    """Return the figures of the run by name."""
    return {path.stem: path for path in sorted((folder / "figures").glob("*.png"))}


def examples(folder: Path, images: int) -> list[tuple[Path, str]]:
    """Return up to ``images`` example pictures of the run, each with a caption from its row of samples.parquet."""
    pictures = sorted((folder / "figures" / "examples").glob("*.png"))[:images]
    if not pictures:
        return []
    columns = ["id", "label", "clean_prediction", "clean_confidence", "attacked_prediction", "attacked_confidence"]
    table = pq.read_table(folder / "samples.parquet", columns=columns)
    wanted = np.isin(table["id"].to_numpy(), [int(path.stem) for path in pictures])
    found = {row["id"]: row for row in table.filter(pa.array(wanted)).to_pylist()}
    return [(path, _caption(found[int(path.stem)])) for path in pictures]


def _caption(row: Mapping[str, Any]) -> str:
    said = (f"{part} {row[f'{part}_prediction']} ({row[f'{part}_confidence']:.3f})" for part in ("clean", "attacked"))
    return f"image {row['id']}, label {row['label']}: {', '.join(said)}"


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}/")
        else:
            yield f"{path}{key}", value


def _table(rows: list[Any]) -> Rows:
    flat = [dict(_leaves(row)) if isinstance(row, Mapping) else {"value": row} for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    return Rows(columns=columns, rows=[[_cell(row.get(name)) for name in columns] for row in flat])


def _cell(value: Any) -> Scalar:
    return json.dumps(value) if isinstance(value, list) else value


def _plain(value: Any) -> Scalar:
    return None if isinstance(value, float) and not math.isfinite(value) else value
