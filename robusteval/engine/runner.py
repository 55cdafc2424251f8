"""One evaluation: from a validated configuration to a complete run folder."""

import dataclasses
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
from robusteval.engine import oracle, plan, probe, selftest
from robusteval.engine.devices import devices_of
from robusteval.engine.session import Session, load, opened
from robusteval.engine.signals import interruptible
from robusteval.engine.workers import share
from robusteval.errors import UserError
from robusteval.evidence import atomic, derive, lock
from robusteval.evidence.folder import RunFolder, write_json
from robusteval.provenance import provenance
from robusteval.report.console import show
from robusteval.report.examples import examples
from robusteval.report.figures import draw
from robusteval.report.progress import progress
from robusteval.sinks.options import NoLogger
from robusteval.sinks.push import prepare, push


def evaluate(config: Config, command: Sequence[str]) -> Path:
    """Evaluate, or finish what a killed process began, or show what is complete; return the run's folder.

    Raises UserError before any pass where something is missing or wrong, Interrupted on Ctrl-C and SIGTERM.
    """
    run = RunFolder(Path(config.runs.dir) / config.folder_name)
    if run.complete and run.samples_file.is_file() and run.figures.is_dir() and not config.runs.fresh:
        plan.serves(run, config)
        if not isinstance(config.logger, NoLogger) and not run.results()["sinks"]:
            push(config.logger, run.path)  # a run that was interrupted there, or made without
        show(run.results(), run.path)
        return run.path
    refuse_missing(config)
    devices = devices_of(config.runtime.device, config.runtime.workers, torch.cuda.device_count())
    atomic.make_folder(Path(config.runs.dir))  # before weights are loaded for nothing
    prepare(config.logger)
    with interruptible():
        classifier, dataset = load(config)
        for note in (*dataset.notes, *config.attack.notes()):
            print(f"robusteval: {note}", file=sys.stderr)
        _fits(config, classifier)
        if config.runs.fresh and run.path.exists():
            lock.refuse_held(run.locks)
            _set_aside(run.path)
        with lock.hold(run.locks, "1-of-1"):
            return _run(config, run, classifier, dataset, devices, command)


def refuse_missing(config: Config) -> None:
    """Raise UserError where the attack cannot run here or the data are not there.

    Of weights that are not there either the sentence on the data speaks too; alone they are no reason to stop: loading
    fetches them where it can, and says what is missing where not.
    """
    if (sentence := config.attack.refusal(config.threat.norm)) is not None:
        raise UserError(sentence)
    if (sentence := config.dataset.missing()) is not None:
        raise UserError("\n            ".join([sentence, *filter(None, [config.model.missing()])]))


def _run(
    config: Config,
    run: RunFolder,
    classifier: Classifier,
    dataset: Dataset,
    devices: Sequence[torch.device],
    command: Sequence[str],
) -> Path:
    run.sweep_leftovers()
    begun = time.monotonic()
    with opened(config, classifier, dataset, devices[0], config.runtime.threads) as session:
        check(dataset, classifier, session.first)
        selftest.check_answer(classifier, session.passes, session.first)
        _begin(run, session, command)
        total = len(dataset) * (1 + len(session.stages))
        with progress(total, f"{config.model.name}, {config.attack.method}") as advance:
            work = session.work(run, advance)
            tasks = list(work.pending())
            if min(len(devices), len(tasks)) > 1:
                share(config, run, tasks, devices[: len(tasks)], advance)
            else:
                for number, done in tasks:
                    work.compute(number, done)
    return _finish(config, run, dataset, time.monotonic() - begun)


def _begin(run: RunFolder, session: Session, command: Sequence[str]) -> None:
    """Create run.json, or compare with what stands there."""
    config, passes, first = session.config, session.passes, session.first
    facts = plan.facts_of(config, session.classifier, session.dataset)
    if run.run_file.exists():
        plan.same(run, facts, config)
        return
    labels = torch.from_numpy(session.dataset.labels[: len(first)]).to(session.device)
    gradients = facts["plan"]["gradients"]
    facts["model_facts"] = probe.look(passes, first, labels, gradients=gradients)
    facts["draws"] = 1 if facts["model_facts"]["deterministic"] else config.engine.draws
    facts["bitwise"] = selftest.bitwise(passes, first, labels, gradients=gradients)
    facts["oracle"] = _oracle(session, facts["model_facts"], labels, gradients=gradients)
    form = oracle.build(passes.module, facts["oracle"]["form"], "float32")
    searched = dataclasses.replace(passes, module=form)
    facts["bitwise"] &= selftest.bitwise(searched, first, labels, gradients=gradients)
    facts["provenance"] = provenance(command, session.device)
    atomic.write(run.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config.plain())).encode())
    atomic.create(run.run_file, atomic.to_json(facts))


def _oracle(session: Session, seen: dict[str, Any], labels: torch.Tensor, *, gradients: bool) -> dict[str, Any]:
    """Return what run.json says of the form of the model that attacks search."""
    wish = session.config.engine.oracle
    if not seen["deterministic"]:
        wish = "given"  # nothing could be compared
    choice = oracle.choose(session.passes, session.first, labels, wish, gradients=gradients)
    return {**choice.facts(), "precisions": sorted({stage.precision for stage in session.stages})}


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
        attack = f"attack={config.attack.method} with these options"
        what = "threat.goal=top5" if config.threat.goal == "top5" else attack
        raise UserError(f"{what} needs at least {needed} classes, and model={classifier.name} has {classifier.classes}")
    most = config.attack.max_classes()
    if most is not None and classifier.classes > most:
        raise UserError(
            f"attack={config.attack.method} with these options takes at most {most} classes, since it keeps a gradient "
            f"for each, and model={classifier.name} has {classifier.classes}"
        )


def _set_aside(path: Path) -> None:
    """Move a run out of the way, beside the other runs, under the first free number."""
    aside = path.parent / ".set_aside"
    aside.mkdir(parents=True, exist_ok=True)
    number = next(i for i in range(1, 10**6) if not (aside / f"{path.name}.{i}").exists())
    path.rename(aside / f"{path.name}.{number}")
