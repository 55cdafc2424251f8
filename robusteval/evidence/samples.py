"""samples.parquet: one row an image, in the order of the plan, derived from the shards and from nothing else."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from robusteval.errors import RobustevalError
from robusteval.evidence import shards, stopping
from robusteval.evidence.folder import RunFolder
from robusteval.evidence.tables import table
from robusteval.metrics.curve import radii_of, smallest_that_reach
from robusteval.metrics.predictions import kept
from robusteval.metrics.survey import Fooling, consistency, survey, universal, worst
from robusteval.metrics.transforms import UNTRANSFORMED

_STATISTICS = ("prediction", "confidence", "label_logit", "logsumexp", "sum_p2", "entropy", "top_logits", "top_classes")
_UNTEMPERED = tuple(f"untempered_{name}" for name in _STATISTICS)


def assemble(run: RunFolder) -> pa.Table:
    """Return the table of samples. Raises RobustevalError naming the chunk where a shard is missing."""
    column = worst_column(run)
    tables = [_chunk(run, parts, column) for parts in _chunks(run)]
    return pa.concat_tables(tables) if tables else pa.table({})


def survey_of(run: RunFolder, *, exhaustive: bool) -> dict[str, Any] | None:
    """Return the ``survey`` section of the results: what the answers at every parameter say; None without a survey.

    ``exhaustive`` says whether the images are on the grid that makes an exhaustive survey of thresholds so.
    """
    marks = run.run["plan"].get("survey")
    if marks is None:
        return None
    broken, clean_correct = _survey_flags(run)
    # Runs of earlier versions were of thresholds, and say neither of the two.
    of_8_bit, chances = marks.get("of_8_bit", True), marks.get("chances")
    complete = marks["exhaustive"] and (exhaustive or not of_8_bit)
    return {
        "exhaustive": complete,
        **survey(
            ~broken,
            np.asarray(marks["columns"]),
            clean_correct,
            exhaustive=complete,
            chances=None if chances is None else np.asarray(chances),
        ),
        **({"consistency": consistency(_agreement(run), marks["identity"])} if "identity" in marks else {}),
    }


def fooling_by_class(run: RunFolder) -> Fooling | None:
    """Return how many of each class's images that are right each parameter fools; None where there was no survey."""
    if "survey" not in run.run["plan"]:
        return None
    broken, clean_correct = _survey_flags(run)
    labels = np.concatenate([clean.column("label").to_numpy() for clean, *_ in _chunks(run)])[clean_correct]
    kinds, group = np.unique(labels, return_inverse=True)
    fooled = np.zeros((len(kinds), broken.shape[1]), dtype=np.int64)
    np.add.at(fooled, group, broken[clean_correct])
    return Fooling(labels=kinds, n=np.bincount(group, minlength=len(kinds)), fooled=fooled)


def worst_column(run: RunFolder) -> int | None:
    """Return the column of a universal attack that is worst over all images, the first of equals; None otherwise."""
    marks = run.run["plan"].get("survey")
    if marks is None or not marks["universal"]:
        return None
    broken, _ = _survey_flags(run)
    curve = universal(~broken, np.arange(broken.shape[1]))
    lowest = worst(curve)
    return None if lowest is None else int(lowest["parameter"])


def _survey_flags(run: RunFolder) -> tuple[np.ndarray, np.ndarray]:
    columns = len(run.run["plan"]["survey"]["columns"])
    flags, correct = [np.zeros((0, columns), dtype=bool)], [np.zeros(0, dtype=bool)]
    for clean, *stages in _chunks(run):
        flags.append(_matrix(stages[0], "survey_broken"))
        correct.append(clean.column("clean_correct").to_numpy(zero_copy_only=False))
    return np.concatenate(flags), np.concatenate(correct)


def _agreement(run: RunFolder) -> np.ndarray:
    """Return whether every image's prediction at every parameter is the clean one, [n, columns] bool."""
    same = [np.zeros((0, len(run.run["plan"]["survey"]["columns"])), dtype=bool)]
    for clean, *stages in _chunks(run):
        same.append(_matrix(stages[0], "survey_prediction") == clean.column("clean_prediction").to_numpy()[:, None])
    return np.concatenate(same)


def _chunks(run: RunFolder) -> Iterator[list[pa.Table]]:
    """Yield the shards of every chunk, one table a stage, the clean one first."""
    paths = {stage: run.shards(stage).inspect()[0] for stage in run.stages}
    for chunk in range(stopping.counted(run)):
        for stage in run.stages:
            if chunk not in paths[stage]:
                raise RobustevalError(
                    f"{run.path}: stage {stage} lacks chunk {chunk}; run the command again to compute it"
                )
        yield [shards.read(paths[stage][chunk]) for stage in run.stages]


def _chunk(run: RunFolder, parts: list[pa.Table], column: int | None) -> pa.Table:
    clean, *stages = parts
    n = len(clean)
    out = {name: _values(clean, name) for name in clean.column_names}
    label = out["label"]
    statistics = [*_STATISTICS, *(name for name in _UNTEMPERED if f"clean_{name}" in out)]
    attacked = {name: out[f"clean_{name}"].copy() for name in statistics}
    kept_loss = _loss(attacked)
    correct = out["clean_correct"]
    standing = correct.copy()
    nonfinite = out.pop("nonfinite").copy()
    broken_by, broken_at = np.full(n, None, dtype=object), np.full(n, np.nan)
    kept_broken = np.zeros(n, dtype=bool)
    distance = {"distance_linf": np.zeros(n), "distance_l2": np.zeros(n)}
    passes = {
        "forward_passes": np.full(n, run.run["draws"], dtype=np.int64),
        "backward_passes": np.zeros(n, dtype=np.int64),
    }
    parameter, adversarial = np.full(n, np.nan), np.full(n, np.nan)
    place = {int(sample): row for row, sample in enumerate(out["id"])}
    for stage, part in zip(run.stages[1:], stages, strict=True):
        rows = np.array([place[int(sample)] for sample in part.column("id").to_numpy()], dtype=np.int64)
        found = _at_column(part, column, statistics, run) if column is not None else _kept(part, statistics)
        broken = found.pop("broken")
        for name in passes:
            passes[name][rows] += _values(part, name)
        nonfinite[rows] |= _values(part, "nonfinite")
        nearest = _nearest(part)
        adversarial[rows] = np.fmin(adversarial[rows], nearest)
        # A broken point outranks others, and among equals the higher loss does.
        higher = _loss(found) >= kept_loss[rows]
        takes = np.isfinite(nearest) | np.where(kept_broken[rows], broken & higher, broken | higher)
        if column is not None:  # one parameter for all, whatever its loss; where its image is outside, the clean one
            takes = found.pop("inside")
        at = rows[takes]
        for name in statistics:
            attacked[name][at] = found[name][takes]
        for name in distance:
            distance[name][at] = found[name][takes]
        parameter[at] = found["parameter"][takes]
        kept_loss[at] = _loss(found)[takes]
        kept_broken[rows] |= broken
        newly = rows[broken & standing[rows]]
        broken_by[newly] = stage
        broken_at[newly] = np.nan if (radius := run.radius(stage)) is None else radius
        standing[newly] = False
    # What a minimum-norm attack found within the largest radius may lie within a smaller one.
    broken_at = np.fmin(broken_at, smallest_that_reach(radii_of(run.run["threat"]["eps"]), adversarial))
    fell = np.isfinite(broken_at) & out["clean_correct"] & ~standing
    return table(
        {
            "id": out["id"],
            "label": label,
            "clean_prediction": out["clean_prediction"],
            "clean_confidence": out["clean_confidence"],
            "attacked_prediction": attacked["prediction"],
            "attacked_confidence": attacked["confidence"],
            "clean_correct": correct,
            "robust": standing,
            "broken_by": pa.array(broken_by, type=pa.string()),
            "broken_at_eps": pa.array(broken_at, mask=~fell),
            **distance,
            **passes,
            **{f"clean_{name}": out[f"clean_{name}"] for name in statistics[2:]},
            **{f"attacked_{name}": attacked[name] for name in statistics[2:]},
            "attack_parameter": pa.array(parameter, mask=np.isnan(parameter)),
            "adversarial_distance": pa.array(adversarial, mask=np.isnan(adversarial)),
            "nonfinite": nonfinite,
            **({UNTRANSFORMED: out[UNTRANSFORMED]} if UNTRANSFORMED in out else {}),
        }
    )


def _nearest(part: pa.Table) -> np.ndarray:
    """Return how near the nearest adversarial of every row is; NaN where none was found or none was looked for."""
    if "adversarial_distance" not in part.column_names:
        return np.full(len(part), np.nan)
    return part.column("adversarial_distance").to_numpy(zero_copy_only=False).astype(np.float64)


def _kept(part: pa.Table, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the kept point of every row of a stage's shard."""
    return {
        "broken": _values(part, "broken"),
        "distance_linf": _values(part, "distance_linf"),
        "distance_l2": _values(part, "distance_l2"),
        "parameter": part.column("attack_parameter").to_numpy(zero_copy_only=False).astype(np.float64),
        **{name: _values(part, f"attacked_{name}") for name in names},
    }


def _at_column(part: pa.Table, column: int, names: Sequence[str], run: RunFolder) -> dict[str, np.ndarray]:
    """Return the answers of one column of a survey as if that parameter had been the attack.

    A survey keeps statistics, not all logits: the largest one follows from confidence and logsumexp, the others are
    NaN. What was before a temperature is not kept of it either: all NaN.
    """
    statistics = {name: _matrix(part, f"survey_{name}")[:, column].astype(np.float64) for name in _FROM_SURVEY}
    prediction = _matrix(part, "survey_prediction")[:, column]
    width = kept(run.run["model"]["classes"])
    top_classes, top_logits = np.full((len(part), width), -1, np.int32), np.full((len(part), width), np.nan, np.float32)
    top_classes[:, 0] = prediction
    top_logits[:, 0] = statistics["logsumexp"] + np.log(statistics["confidence"])
    return {
        "broken": _matrix(part, "survey_broken")[:, column],
        "inside": _matrix(part, "survey_inside")[:, column],
        "distance_linf": statistics.pop("linf"),
        "distance_l2": statistics.pop("l2"),
        "parameter": np.full(len(part), run.run["plan"]["survey"]["columns"][column]),
        "prediction": prediction,
        **statistics,
        "top_logits": top_logits,
        "top_classes": top_classes,
        **{name: _nothing_like(_values(part, f"attacked_{name}")) for name in names[len(_STATISTICS) :]},
    }


_FROM_SURVEY = ("confidence", "label_logit", "logsumexp", "sum_p2", "entropy", "linf", "l2")


def _nothing_like(values: np.ndarray) -> np.ndarray:
    return np.full_like(values, np.nan if np.issubdtype(values.dtype, np.floating) else -1)


def _loss(statistics: dict[str, np.ndarray]) -> np.ndarray:
    loss = statistics["logsumexp"] - statistics["label_logit"]
    return np.where(np.isnan(loss), np.inf, loss)


def _values(part: pa.Table, name: str) -> np.ndarray:
    if pa.types.is_fixed_size_list(part.schema.field(name).type):
        return _matrix(part, name)
    return part.column(name).to_numpy(zero_copy_only=False)


def _matrix(part: pa.Table, name: str) -> np.ndarray:
    values = part.column(name).combine_chunks()
    width = part.schema.field(name).type.list_size
    return values.flatten().to_numpy(zero_copy_only=False).reshape(len(part), width)
