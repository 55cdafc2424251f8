"""Checks that need nothing but the evidence of a finished run: they derive again from the files, like every number."""

from typing import Any

import numpy as np
import pyarrow as pa

from robusteval.evidence import shards
from robusteval.evidence.folder import CLEAN, RunFolder

Check = dict[str, str]


def checks(run: RunFolder, samples: pa.Table) -> list[Check]:
    """Return {id, verdict, summary} of every check; the verdict is pass, warn, fail or skipped."""
    return [
        nonfinite(samples),
        confirmed(run),
        deterministic(run.run),
        bitwise(run.run),
        *grid(run),
        *reference_budget(run),
    ]


def nonfinite(samples: pa.Table) -> Check:
    """NaN or infinite logits or gradients: counted as broken where a prediction needed them, never dropped."""
    count = int(np.count_nonzero(samples["nonfinite"].to_numpy(zero_copy_only=False)))
    if not count:
        return _check("finite", "pass", "all logits and gradients were finite")
    return _check(
        "finite",
        "warn",
        f"{count} of {len(samples)} images met logits or gradients that were not finite; such logits count as wrong "
        "and leave calibration, "
        "such gradients count as zero: mend the network, or read robust accuracy as an upper bound",
    )


def confirmed(run: RunFolder) -> Check:
    """Whether the model as given agreed with every claim of the search."""
    rejected = 0
    for stage in run.stages[1:]:
        for path in run.shards(stage).inspect()[0].values():
            rejected += int(shards.metadata_of(path).get("rejected", "0"))
    if not rejected:
        return _check("confirmed", "pass", "every claim of the attack held when the model predicted it again")
    return _check(
        "confirmed",
        "warn",
        f"{rejected} claims did not hold when the model predicted the same point again: it is randomised or depends "
        "on the batch, "
        "so attacks are judged too weak; make its forward pass deterministic",
    )


def deterministic(run: dict[str, Any]) -> Check:
    """Whether the model gives the same images the same logits."""
    if run["deterministic"]:
        return _check("deterministic", "pass", "the same images got the same logits twice")
    return _check(
        "deterministic",
        "fail",
        "the model is randomised: the same images got other logits the second time, so one prediction decides nothing "
        "and gradients mislead; switch the randomness off, this number is not a robust accuracy",
    )


def bitwise(run: dict[str, Any]) -> Check:
    """Whether results are the same bits for any number of slots."""
    if run["bitwise"]:
        return _check("bitwise", "pass", "bits do not depend on the batch: any number of slots gives this result")
    return _check(
        "bitwise",
        "warn",
        "bits of this model depend on the batch size here: other slots may decide images at the very boundary "
        "otherwise",
    )


def grid(run: RunFolder) -> list[Check]:
    """Whether thresholds between the grey values are all there are: only for images of 256 grey values."""
    survey = run.run["plan"].get("survey")
    if survey is None or not survey["exhaustive"]:
        return []
    if exhaustive(run):
        return [_check("grid", "pass", "every pixel is k/255, so the 257 thresholds are all that differ")]
    return [
        _check(
            "grid",
            "warn",
            "pixels lie between the 256 grey values, so the 257 thresholds are a grid, not exhaustive: "
            "robust accuracy is an upper bound, and no expectation of the random search is given",
        )
    ]


def reference_budget(run: RunFolder) -> list[Check]:
    """Whether the points that other libraries returned lay in the threat, up to rounding: only where some returned."""
    marks = [
        shards.metadata_of(path)["outside"]
        for stage in run.stages[1:]
        for path in run.shards(stage).inspect()[0].values()
        if "outside" in shards.metadata_of(path)
    ]
    if not marks:
        return []
    count = sum(map(int, marks))
    if not count:
        return [_check("reference_budget", "pass", "every point of the other library lay in the threat up to rounding")]
    return [
        _check(
            "reference_budget",
            "warn",
            f"{count} points of the other library lay outside the threat by more than 1e-5 and were projected before "
            "they counted: its attack may search another ball than this one, so read robust accuracy as an upper "
            "bound and check its options",
        )
    ]


def exhaustive(run: RunFolder) -> bool:
    """Return whether all images of the run are on the k/255 grid."""
    return all(shards.metadata_of(path).get("on_grid") == "True" for path in run.shards(CLEAN).inspect()[0].values())


def _check(name: str, verdict: str, summary: str) -> Check:
    return {"id": name, "verdict": verdict, "summary": summary}
