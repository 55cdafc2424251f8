"""From shards to results: everything here can be derived again, and ``verify`` does so."""

from typing import Any

import pyarrow as pa

from robusteval.checks.evidence import checks, exhaustive
from robusteval.evidence import atomic, forensics, samples, shards, stopping, worst
from robusteval.evidence.folder import SCHEMA, RunFolder
from robusteval.metrics.summary import summarise
from robusteval.metrics.transforms import transforms


def table_of(run: RunFolder) -> pa.Table:
    """Return the table of samples: from the shards, or of a merge from its parts."""
    return worst.assemble(run) if worst.is_merge(run) else samples.assemble(run)


def write_samples(run: RunFolder) -> pa.Table:
    """Derive samples.parquet, write it and return it."""
    table = table_of(run)
    atomic.write(run.samples_file, shards.encode(table))
    return table


def results(run: RunFolder, table: pa.Table) -> dict[str, Any]:
    """Return all of results.json that follows from the evidence; cost lacks its times, sinks are empty."""
    facts = run.run
    names = facts["model"].get("class_names")
    numbers = summarise(
        table,
        classes=facts["model"]["classes"],
        stages=run.stages[1:],
        point=facts["plan"]["point"],
        eps=facts["threat"]["eps"],
        class_names=names,
    )
    changed = transforms(table, facts["model"]["classes"])
    merged = worst.is_merge(run)
    survey = None if merged else samples.survey_of(run, exhaustive=exhaustive(run))
    perturbation = None if merged else forensics.section(run)
    stopped = {} if merged else stopping.section(run, numbers)
    return {
        "schema": SCHEMA,
        "status": "complete",
        "fingerprint": facts["fingerprint"],
        "model": {key: value for key, value in facts["model"].items() if key != "class_names"},
        "dataset": facts["dataset"],
        "attack": facts["attack"],
        "threat": facts["threat"],
        "seed": facts["seed"],
        **numbers,
        **stopped,
        **({} if survey is None else {"survey": survey}),
        **({} if perturbation is None else {"perturbation": perturbation}),
        **({} if changed is None else {"transforms": changed}),
        "cost": {
            "forward_passes": int(table["forward_passes"].to_numpy().sum()),
            "backward_passes": int(table["backward_passes"].to_numpy().sum()),
        },
        "checks": worst.checks(run) if merged else checks(run, table),
        **({"parts": worst.shares(run)} if merged else {}),
        "evidence": {"samples_sha256": atomic.sha256(shards.encode(table)), "kept": facts["evidence"]},
    }
