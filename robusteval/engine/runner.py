"""One evaluation: from a validated configuration to a complete run folder."""

import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from robusteval.classifier import Classifier
from robusteval.config import Config
from robusteval.datasets.base import Dataset
from robusteval.datasets.checks import check
from robusteval.engine import selftest
from robusteval.engine.passes import QUANTUM, Passes, frozen
from robusteval.engine.search import Searcher, point_of
from robusteval.engine.signals import interruptible
from robusteval.engine.units import Work
from robusteval.errors import UserError
from robusteval.evidence import atomic, derive, files, images, lock
from robusteval.evidence.folder import CLEAN, RunFolder, write_json
from robusteval.provenance import provenance
from robusteval.report.console import show
from robusteval.report.examples import examples
from robusteval.report.figures import draw
from robusteval.report.progress import progress
from robusteval.sinks.options import NoLogger
from robusteval.sinks.push import prepare, push

# The order of evidence kept: a finished run serves whoever asks for no more than it holds.
_KEPT = ("none", "auto", "all")


def evaluate(config: Config, command: Sequence[str]) -> Path:
    """Evaluate, or finish what a killed process began, or show what is complete; return the run's folder.

    Raises UserError before any pass where something is missing or wrong, Interrupted on Ctrl-C and SIGTERM.
    """
    run = RunFolder(Path(config.runs.dir) / config.folder_name)
    if run.complete and run.samples_file.is_file() and run.figures.is_dir() and not config.runs.fresh:
        _serves(run, config)
        if not isinstance(config.logger, NoLogger) and not run.results()["sinks"]:
            push(config.logger, run.path)  # a run that was interrupted there, or made without
        show(run.results(), run.path)
        return run.path
    refuse_missing(config)
    atomic.make_folder(Path(config.runs.dir))  # before weights are loaded for nothing
    prepare(config.logger)
    with interruptible():
        classifier = config.model.load()
        dataset = config.dataset.load(classifier.preprocessing, config.seed)
        for note in dataset.notes:
            print(f"robusteval: {note}", file=sys.stderr)
        _fits(config, classifier)
        if config.runs.fresh and run.path.exists():
            lock.refuse_held(run.locks)
            _set_aside(run.path)
        with lock.hold(run.locks, "1-of-1"):
            return _run(config, run, classifier, dataset, command)


def refuse_missing(config: Config) -> None:
    """Raise UserError where the data are not there, with a sentence on the weights too if those are not either.

    Weights alone are no reason to stop: loading fetches them where it can, and says what is missing where not.
    """
    if (sentence := config.dataset.missing()) is not None:
        raise UserError("\n            ".join([sentence, *filter(None, [config.model.missing()])]))


def _run(config: Config, run: RunFolder, classifier: Classifier, dataset: Dataset, command: Sequence[str]) -> Path:
    run.sweep_leftovers()
    if config.runtime.threads is not None:
        torch.set_num_threads(config.runtime.threads)
    device = _device(config.runtime.device)
    module = classifier.module.to(device)
    begun = time.monotonic()
    with frozen(module):
        first = dataset.images(range(min(len(dataset), 2 * QUANTUM))).to(device)
        check(dataset, classifier, first)
        slots = min(config.engine.slots or _slots(device, first.shape[-1]), config.chunk)
        passes = Passes(module=module, batch=-(-slots // QUANTUM) * QUANTUM)
        selftest.check_answer(classifier, passes, first)
        _begin(config, run, classifier, dataset, command, device, passes, first)
        stages = config.attack.stages()
        with progress(len(dataset) * (1 + len(stages)), f"{config.model.name}, {config.attack.name}") as advance:
            searcher = Searcher(
                oracle=passes,
                verifier=Passes(module=module, batch=passes.batch),
                threat=config.threat,
                seed=config.seed,
                slots=slots,
                stop=config.engine.stop,
                tick=advance,
            )
            keep = images.policy(config.evidence, len(dataset), first[0].numel() * 4, config.seed)
            work = Work(run=run, dataset=dataset, stages=stages, searcher=searcher, keep=keep, device=device)
            for number, done in work.pending():
                work.compute(number, done)
    return _finish(config, run, dataset, time.monotonic() - begun)


def _begin(
    config: Config,
    run: RunFolder,
    classifier: Classifier,
    dataset: Dataset,
    command: Sequence[str],
    device: torch.device,
    passes: Passes,
    first: torch.Tensor,
) -> None:
    """Create run.json, or compare with what stands there."""
    facts = facts_of(config, classifier, dataset)
    if run.run_file.exists():
        _same(run, facts, config)
        return
    gradients = any(attack.gradients for _, attack in config.attack.stages())
    labels = torch.from_numpy(dataset.labels[: len(first)]).to(device)
    facts["deterministic"] = selftest.deterministic(passes, first)
    facts["bitwise"] = selftest.bitwise(passes, first, labels, gradients=gradients)
    facts["oracle"] = {"form": "as given", "precision": "float32"}
    facts["provenance"] = provenance(command, device)
    atomic.write(run.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config.plain())).encode())
    atomic.create(run.run_file, atomic.to_json(facts))


def facts_of(config: Config, classifier: Classifier, dataset: Dataset) -> dict[str, Any]:
    """Return what run.json says of the plan and of what was met: key, digests, chunks, stages."""
    identity = config.identity()
    digests = {"model": classifier.digest, "dataset": dataset.digest, "preprocessing": repr(classifier.preprocessing)}
    canonical = "\n".join([config.key, *digests.values()])
    columns = config.attack.columns()
    survey = None
    if columns is not None:
        survey = {
            "columns": columns.tolist(),
            "universal": config.attack.universal(),
            "exhaustive": config.attack.exhaustive(),
        }
    return {
        "schema": derive.SCHEMA,
        "key": config.key,
        "fingerprint": hashlib.sha256(canonical.encode()).hexdigest()[:16],
        "digests": digests,
        "files": files.digests(config.plain()),
        "plan": {
            "n": len(dataset),
            "chunk": config.chunk,
            "chunks": -(-len(dataset) // config.chunk),
            "stages": [CLEAN, *(name for name, _ in config.attack.stages())],
            "point": point_of(config.attack, config.engine.stop),
            **({} if survey is None else {"survey": survey}),
        },
        "model": {
            "name": classifier.name,
            "source": classifier.source,
            "digest": classifier.digest,
            "classes": classifier.classes,
            "class_names": classifier.class_names or dataset.class_names,
        },
        "dataset": {"name": dataset.name, "n": len(dataset), "digest": dataset.digest},
        "attack": {"name": config.attack.name, **{k: v for k, v in identity["attack"].items() if k != "method"}},
        "threat": {**identity["threat"], "region": None},
        "seed": config.seed,
        "stop": config.engine.stop,
        "evidence": config.evidence.keep,
    }


def _same(run: RunFolder, facts: dict[str, Any], config: Config) -> None:
    """Refuse to go on with a run that began with other weights, data or preprocessing, or that keeps less evidence."""
    advice = "runs.fresh=true sets it aside and starts anew"
    for name, met in facts["digests"].items():
        if run.run["digests"].get(name) != met:
            what = {"model": "weights", "dataset": "images or labels"}.get(name, name)
            raise UserError(f"{run.path}: {what} changed since this run began; {advice}")
    _serves(run, config)


def _serves(run: RunFolder, config: Config) -> None:
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


def _finish(config: Config, run: RunFolder, dataset: Dataset, seconds: float) -> Path:
    table = derive.write_samples(run)
    results = derive.results(run, table)
    passes = results["cost"]["forward_passes"] + results["cost"]["backward_passes"]
    results["cost"] |= {
        "seconds": round(seconds, 3),
        "passes_per_second": round(passes / seconds, 1) if seconds else None,
    }
    results["provenance"] = run.run["provenance"]
    results["sinks"] = []
    draw(run.path, results, table, examples(run, table, dataset, config.attack), results.get("survey"))
    write_json(run.results_file, results)
    push(config.logger, run.path)
    show(run.results(), run.path)
    return run.path


def _fits(config: Config, classifier: Classifier) -> None:
    """Refuse an attack or a goal that needs more classes than there are."""
    needed = 6 if config.threat.goal == "top5" else config.attack.min_classes()
    if classifier.classes < needed:
        what = "threat.goal=top5" if config.threat.goal == "top5" else f"attack={config.attack.name} with these options"
        raise UserError(f"{what} needs at least {needed} classes, and model={classifier.name} has {classifier.classes}")


def _set_aside(path: Path) -> None:
    """Move a run out of the way, beside the other runs, under the first free number."""
    aside = path.parent / ".set_aside"
    aside.mkdir(parents=True, exist_ok=True)
    number = next(i for i in range(1, 10**6) if not (aside / f"{path.name}.{i}").exists())
    path.rename(aside / f"{path.name}.{number}")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise UserError(
                f"runtime.device={name}: this machine shows {count} CUDA devices to torch; use runtime.device=cpu "
                "or auto"
            )
    return device


def _slots(device: torch.device, side: int) -> int:
    """Return how many samples to attack at once: a guess by memory, which changes no result."""
    if device.type == "cuda":
        return 512 if side <= 64 else 64
    return 64 if side <= 64 else 16
