"""What an evaluation will do and has met: the facts of run.json, and whether a later command still fits them."""

import dataclasses
import hashlib
from typing import Any

from robusteval import region
from robusteval.classifier import Classifier
from robusteval.config import Config
from robusteval.datasets.base import Dataset
from robusteval.engine import forensics
from robusteval.engine.search import point_of
from robusteval.engine.stages import stages_of
from robusteval.errors import UserError
from robusteval.evidence import files
from robusteval.evidence.folder import CLEAN, SCHEMA, RunFolder

# In ascending order: a run that was begun serves whoever asks for no more than it holds.
_KEPT = ("none", "auto", "all")
_LEVELS = ("off", "standard", "strict")


def facts_of(config: Config, classifier: Classifier, dataset: Dataset) -> dict[str, Any]:
    """Return what run.json says of the plan and of what was met: key, digests, chunks, stages."""
    identity = config.identity()
    digests = digests_of(classifier, dataset)
    if (library := config.attack.library()) is not None:
        digests["library"] = library
    if (mask := region.digest(config.threat.region)) is not None:
        digests["region"] = mask
    if (read := config.attack.files()) is not None:
        digests["attack"] = read
    origins = config.attack.origins()
    canonical = "\n".join([config.key, *digests.values()])
    columns, stages = config.attack.columns(), stages_of(config.attack, config.threat, config.engine.mode)
    attacks = [stage.attack for stage in stages]
    gradients = any(attack.gradients for attack in attacks)
    survey = None
    if columns is not None:
        survey = {
            "columns": columns.tolist(),
            "universal": config.attack.universal(),
            "exhaustive": config.attack.exhaustive(),
            "of_8_bit": config.attack.of_8_bit,
            "chances": None if (chances := config.attack.chances()) is None else chances.tolist(),
            "identity": config.attack.identity(),
        }
    return {
        "schema": SCHEMA,
        "key": config.key,
        "fingerprint": hashlib.sha256(canonical.encode()).hexdigest()[:16],
        "digests": digests,
        "files": files.digests(config.plain()),
        "plan": {
            "n": len(dataset),
            "chunk": config.chunk,
            "chunks": -(-len(dataset) // config.chunk),
            "stages": [CLEAN, *(stage.name for stage in stages)],
            **({} if len(config.threat.radii) == 1 else {"radii": {s.name: s.threat.radius for s in stages}}),
            "gradients": gradients,
            "averages_gradients": gradients and all(a.averages() for a in attacks if a.gradients),
            "mode": config.engine.mode,
            "published": config.attack.published(),
            **({"stopping": config.stop.asked} if config.stop.asked else {}),
            "point": point_of(config.attack, config.engine.stop),
            "forensics": forensics.planned(config),
            **({} if survey is None else {"survey": survey}),
            **({"origins": origins} if origins else {}),
        },
        "model": {
            "name": classifier.name,
            "source": classifier.source,
            "digest": classifier.digest,
            "classes": classifier.classes,
            "class_names": classifier.class_names or dataset.class_names,
            **({} if classifier.reference is None else {"reference": dataclasses.asdict(classifier.reference)}),
            **_untransformed(classifier),
        },
        "dataset": {"name": dataset.name, "n": len(dataset), "digest": dataset.digest},
        "attack": {
            "name": config.attack.label(),
            **{key: value for key, value in identity["attack"].items() if key not in ("method", "name")},
        },
        "threat": {"region": None, **identity["threat"]},
        "seed": config.seed,
        "stop": config.engine.stop,
        "checks": config.checks.level,
        "evidence": config.evidence.keep,
        "evidence_limit": config.evidence.limit_bytes,
    }


def digests_of(classifier: Classifier, dataset: Dataset) -> dict[str, str]:
    """Return what tells apart two models, sets of images, and ways from a picture to an input."""
    return {"model": classifier.digest, "dataset": dataset.digest, "preprocessing": repr(classifier.preprocessing)}


def _untransformed(classifier: Classifier) -> dict[str, Any]:
    """Return what was done to the model, and to which; nothing of a model as it is."""
    before = classifier.untransformed
    if before is None:
        return {}
    return {
        "transforms": [dict(facts) for facts in classifier.transforms],
        "untransformed": {"name": before.name, "digest": before.digest},
    }


def same(run: RunFolder, facts: dict[str, Any], config: Config) -> None:
    """Refuse to go on with a run that began with other weights, data or preprocessing, or that keeps less evidence."""
    if (what := differs(run, facts)) is not None:
        raise UserError(
            f"{run.path}: {what} changed since this run began; runs.fresh=true sets it aside and starts anew"
        )
    serves(run, config)


def differs(run: RunFolder, facts: dict[str, Any]) -> str | None:
    """Return what was met now and is not what the run began with, or None."""
    for name, met in facts["digests"].items():
        if run.run["digests"].get(name) != met:
            return {"model": "weights", "dataset": "images or labels", "attack": "files of attack.runs"}.get(name, name)
    return None


def serves(run: RunFolder, config: Config) -> None:
    """Refuse where a file that the configuration names has changed, or more evidence or checks are asked for."""
    for key in files.changed(run.run["files"], files.digests(config.plain())):
        raise UserError(
            f"{run.path}: the file that {key} names changed since this run began; runs.fresh=true sets it aside and "
            "starts anew"
        )
    kept = run.run["evidence"]
    if _KEPT.index(config.evidence.keep) > _KEPT.index(kept):
        raise UserError(
            f"{run.path} keeps evidence={kept}, and evidence={config.evidence.keep} was asked for; runs.fresh=true "
            "sets it aside and starts anew"
        )
    level = run.run.get("checks", "standard")  # which runs of earlier versions do not say
    if _LEVELS.index(config.checks.level) > _LEVELS.index(level):
        raise UserError(
            f"{run.path} was looked at by checks={level}, and checks={config.checks.level} was asked for, which looks "
            "at the model before the attack; runs.fresh=true sets the run aside and starts anew"
        )
