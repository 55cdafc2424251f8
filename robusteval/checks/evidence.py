"""Checks that need nothing but the evidence of a finished run: they derive again from the files, like every number."""

from typing import Any

import numpy as np
import pyarrow as pa

from robusteval.checks import cascade, inputs, model, search, transfer, transforms
from robusteval.checks.verdict import Check, verdict
from robusteval.evidence import shards, stopping
from robusteval.evidence.folder import CLEAN, RunFolder


def checks(run: RunFolder, samples: pa.Table) -> list[Check]:
    """Return {id, verdict, summary, advice} of every check; the verdict is pass, warn, fail or skipped."""
    if run.run.get("checks") == "off":
        return [
            verdict(
                "checks",
                "skipped",
                "checks=off: nothing was looked at, so nothing says that these numbers mean what they seem to",
                "use checks=standard",
            )
        ]
    return [
        *inputs.checks(run.run, samples),
        nonfinite(samples),
        confirmed(run),
        *model.checks(run.run),
        *transforms.checks(run.run["model"]),
        bitwise(run.run),
        *grid(run),
        *reference_budget(run),
        *cascade.checks(run.run, samples),
        *transfer.checks(run.run, samples),
        *search.checks(run.run, samples, spent(run)),
    ]


def spent(run: RunFolder) -> dict[str, pa.Table]:
    """Return what entered each stage, with whether that broke it and after how many passes."""
    columns = ["broken", "forward_passes"]
    return {
        stage: pa.concat_tables([shards.read(path).select(columns) for path in stopping.evidence(run, stage)])
        for stage in run.stages[1:]
    }


def nonfinite(samples: pa.Table) -> Check:
    """NaN or infinite logits or gradients: counted as broken where a prediction needed them, never dropped."""
    count = int(np.count_nonzero(samples["nonfinite"].to_numpy(zero_copy_only=False)))
    if not count:
        return verdict("finite", "pass", "all logits and gradients were finite")
    return verdict(
        "finite",
        "warn",
        f"{count} of {len(samples)} images met logits or gradients that were not finite; such logits count as wrong "
        "and leave calibration, such gradients count as zero",
        "mend the network, or read robust accuracy as an upper bound",
    )


def confirmed(run: RunFolder) -> Check:
    """Whether the model as given agreed with every claim of the search."""
    rejected = 0
    for stage in run.stages[1:]:
        for path in stopping.evidence(run, stage):
            rejected += int(shards.metadata_of(path).get("rejected", "0"))
    if run.run["draws"] > 1:
        return verdict(
            "confirmed",
            "skipped",
            f"{rejected} claims by single passes did not hold for the mean of {run.run['draws']}",
        )
    if run.run["plan"]["mode"] != "exact":
        return verdict("confirmed", "skipped", f"{rejected} claims of the search in bfloat16 did not hold in float32")
    if not rejected:
        return verdict("confirmed", "pass", "every claim of the attack held when the model predicted it again")
    return verdict(
        "confirmed",
        "warn",
        f"{rejected} claims did not hold when the model predicted the same point again: it is randomised or depends "
        "on the batch, so attacks are judged too weak",
        "make its forward pass deterministic",
    )


def bitwise(run: dict[str, Any]) -> Check:
    """Whether results are the same bits for any number of slots."""
    if run["bitwise"]:
        return verdict("bitwise", "pass", "bits do not depend on the batch: any number of slots gives this result")
    return verdict(
        "bitwise",
        "warn",
        "bits of this model depend on the batch size here: other slots may decide images at the very boundary "
        "otherwise",
        "compare it at the same engine.slots where single images matter",
    )


def grid(run: RunFolder) -> list[Check]:
    """Whether a survey tried all that the attack can make: of thresholds only for images of 256 grey values."""
    survey = run.run["plan"].get("survey")
    if survey is None:
        return []
    tried = len(survey["columns"])
    if not survey["exhaustive"]:
        if run.run["attack"].get("mode") != "exhaustive":
            return []
        return [
            verdict(
                "grid",
                "warn",
                f"the attack's number may be any in an interval, so the {tried} values tried are a grid, not "
                "exhaustive: robust accuracy is an upper bound, and no expectation of the random search is given",
            )
        ]
    if not survey.get("of_8_bit", True):
        return [verdict("grid", "pass", f"all {tried} images that the attack can make of each one were tried")]
    if exhaustive(run):
        return [verdict("grid", "pass", "every pixel is k/255, so the 257 thresholds are all that differ")]
    return [
        verdict(
            "grid",
            "warn",
            "pixels lie between the 256 grey values, so the 257 thresholds are a grid, not exhaustive, and no "
            "expectation of the random search is given",
            "read robust accuracy as an upper bound, or give 8-bit images",
        )
    ]


def reference_budget(run: RunFolder) -> list[Check]:
    """Whether the points that other libraries returned lay in the threat, up to rounding: only where some returned."""
    marks = [
        shards.metadata_of(path)["outside"]
        for stage in run.stages[1:]
        for path in stopping.evidence(run, stage)
        if "outside" in shards.metadata_of(path)
    ]
    if not marks:
        return []
    count = sum(map(int, marks))
    if not count:
        return [
            verdict("reference_budget", "pass", "every point of the other library lay in the threat up to rounding")
        ]
    return [
        verdict(
            "reference_budget",
            "warn",
            f"{count} points of the other library lay outside the threat by more than 1e-5 and were projected before "
            "they counted: its attack may search another ball than this one",
            "check its options, and read robust accuracy as an upper bound",
        )
    ]


def exhaustive(run: RunFolder) -> bool:
    """Return whether all images of the run are on the k/255 grid."""
    return all(shards.metadata_of(path).get("on_grid") == "True" for path in stopping.evidence(run, CLEAN))
