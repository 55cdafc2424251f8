"""One evaluation: from a validated configuration to a complete run folder."""

import contextlib
import dataclasses
import itertools
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from robusteval import region
from robusteval.classifier import Classifier
from robusteval.config import Config
from robusteval.datasets.base import Dataset
from robusteval.datasets.checks import check
from robusteval.engine import memory, oracle, plan, selftest
from robusteval.engine.careful import Careful
from robusteval.engine.devices import devices_of, emulates_bfloat16
from robusteval.engine.facts import look
from robusteval.engine.finish import derived, finish, finish_together
from robusteval.engine.session import Session, load, opened
from robusteval.engine.signals import interruptible
from robusteval.engine.workers import share
from robusteval.errors import UserError
from robusteval.evidence import atomic, failures, lock, times
from robusteval.evidence.folder import RunFolder
from robusteval.evidence.stopping import Decision
from robusteval.missing import refuse_missing
from robusteval.models import window
from robusteval.provenance import provenance
from robusteval.report.console import show
from robusteval.report.progress import progress
from robusteval.sinks.options import NoLogger
from robusteval.sinks.push import prepare, push


def evaluate(config: Config, command: Sequence[str], *, in_sweep: bool = False) -> Path:
    """Evaluate, or finish what a killed process began, or show what is complete; return the run's folder.

    With ``runtime.shard`` only that share of the chunks is computed, and the last share to end finishes the run. An
    error leaves its sentence in the run folder, which ``in_sweep`` is made for it: nobody may be there to see it.
    Raises UserError before any pass where something is missing or wrong, Interrupted on Ctrl-C and SIGTERM.
    """
    run, runtime = RunFolder(Path(config.runs.dir) / config.folder_name), config.runtime
    if runtime.shards > 1 and runtime.shard is None:
        raise UserError(
            f"runtime.shards={runtime.shards}: name it on the command line, where it makes a sweep, or one share of it "
            f"by runtime.shard=1/{runtime.shards}"
        )
    if runtime.shard is not None and config.runs.fresh:
        raise UserError(
            f"runs.fresh=true with runtime.shard={runtime.shard} would set aside what other shards have done; give it "
            "with runtime.shards, or move the run's folder away"
        )
    if derived(run) and not config.runs.fresh:
        plan.serves(run, config)
        if not isinstance(config.logger, NoLogger) and not run.results()["sinks"]:
            _push_late(config, run)
        if runtime.share[0] == 1:  # once for all shards
            show(run.results(), run.path)
        return run.path
    with failures.recorded(run, runtime.task, begin=in_sweep):
        _evaluate(config, run, command)
    return run.path


def _push_late(config: Config, run: RunFolder) -> None:
    """Send a run that was interrupted there, or made without a sink; not while another task is doing just that."""
    with contextlib.suppress(lock.Held), lock.hold(run.locks, lock.FINAL, against=[lock.FINAL, lock.PLAIN]):
        if not run.results()["sinks"]:
            push(config.logger, run.path)


def start_anew(run: RunFolder) -> None:
    """Set a run aside, beside the other runs. Raises Held where a living process is at work on it."""
    if run.path.exists():
        lock.refuse_held(run.locks)
        _set_aside(run.path)


def _evaluate(config: Config, run: RunFolder, command: Sequence[str]) -> None:
    refuse_missing(config)
    devices = devices_of(config.runtime.device, config.runtime.workers, torch.cuda.device_count())
    atomic.make_folder(Path(config.runs.dir))  # before weights are loaded for nothing
    prepare(config.logger)
    with interruptible():
        classifier, dataset = load(config)
        for note in (*dataset.notes, *config.attack.notes(), *_slow(config, devices[0])):
            print(f"robusteval: {note}", file=sys.stderr)
        _fits(config, classifier, dataset)
        if config.runs.fresh:
            start_anew(run)
        task = config.runtime.task
        with lock.hold(run.locks, task, against=None if task == lock.PLAIN else [task, lock.PLAIN]) as gone:
            if gone is not None:
                print(f"robusteval: {run.path} was left by {gone}, which is gone; going on from there", file=sys.stderr)
            _run(config, run, classifier, dataset, devices, command)
            if task == lock.PLAIN:
                finish(config, run, dataset)
            else:
                finish_together(config, run, dataset)


def _slow(config: Config, device: torch.device) -> tuple[str, ...]:
    """Return a note where the mode that is to be fast is the contrary here."""
    if config.engine.mode == "exact":
        return ()
    if not emulates_bfloat16(device, platform.machine(), torch.backends.cpu.get_cpu_capability()):
        return ()
    return (
        f"engine.mode={config.engine.mode} searches in bfloat16, for which this processor has no instructions: it may "
        "take ten times as long as engine.mode=exact",
    )


def _run(
    config: Config,
    run: RunFolder,
    classifier: Classifier,
    dataset: Dataset,
    devices: Sequence[torch.device],
    command: Sequence[str],
) -> None:
    """Compute what this task's share of the chunks still lacks."""
    if config.runtime.task == lock.PLAIN:
        run.sweep_leftovers()  # of shards a living one may be another's
    begun, mine = time.monotonic(), config.runtime.mine
    threads, most = config.runtime.threads, memory.remembered(run)
    with opened(config, classifier, dataset, devices[0], threads, most) as session:
        check(dataset, classifier, session.first)
        _fits_images(config, classifier, (session.first.shape[1], session.first.shape[2], session.first.shape[3]))
        selftest.check_answer(classifier, session.passes, session.first)
        session = memory.within(lambda slots: _begin(run, session.with_slots(slots), command), session.slots, run)
        with progress(_samples(run, dataset, mine), _label(config)) as advance:
            careful = Careful(session, run, advance)
            tasks = list(careful.work.pending(mine))
            decision = Decision(run)

            def enough() -> bool:
                return bool(config.stop.asked) and decision.counted() is not None

            if min(len(devices), len(tasks)) > 1 and not enough():
                share(config, run, tasks, devices[: len(tasks)], advance, enough)
            else:
                for number, done in itertools.takewhile(lambda _: not enough(), tasks):
                    careful.compute(number, done)
    times.note(run, config.runtime.task, time.monotonic() - begun)


def _fits_images(config: Config, classifier: Classifier, shape: tuple[int, int, int]) -> None:
    """Raise UserError where attack or region do not fit images of this shape (C, H, W)."""
    window.check(classifier, shape)
    region.check(config.threat.region, *shape[1:])
    if (sentence := config.attack.unfit(shape)) is not None:
        raise UserError(f"attack={config.attack.method}: {sentence}")


def _samples(run: RunFolder, dataset: Dataset, mine: Callable[[int], bool]) -> int:
    """Return how many samples the stages of all chunks that are ``mine`` have together."""
    size = run.run["plan"]["chunk"]
    chunks = filter(mine, range(run.run["plan"]["chunks"]))
    return sum(min(size, len(dataset) - number * size) for number in chunks) * len(run.stages)


def _label(config: Config) -> str:
    part = "" if config.runtime.shard is None else f", shard {config.runtime.shard}"
    return f"{config.model_name}, {config.attack.method}{part}"


def _begin(run: RunFolder, session: Session, command: Sequence[str]) -> Session:
    """Create run.json, or compare with what stands there; return the session."""
    config, passes, first = session.config, session.passes, session.first
    facts = plan.facts_of(config, session.classifier, session.dataset)
    if run.run_file.exists():
        plan.same(run, facts, config)
        return session
    labels = torch.from_numpy(session.dataset.labels[: len(first)]).to(session.device)
    gradients = facts["plan"]["gradients"]
    facts["model_facts"] = look(session, gradients=gradients)
    facts["draws"] = 1 if facts["model_facts"]["deterministic"] else config.engine.draws
    facts["bitwise"] = selftest.bitwise(passes, first, gradients=gradients)
    facts["oracle"] = _oracle(session, facts["model_facts"], labels, gradients=gradients)
    form = oracle.build(passes.module, facts["oracle"]["form"], "float32")
    if form is not passes.module:
        searched = dataclasses.replace(passes, module=form)
        facts["bitwise"] &= selftest.bitwise(searched, first, gradients=gradients)
    facts["provenance"] = provenance(command, session.network_on)
    atomic.write(run.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config.plain())).encode())
    if not atomic.create(run.run_file, atomic.to_json(facts)):
        plan.same(run, facts, config)  # another shard was faster, and what it wrote holds
    return session


def _oracle(session: Session, seen: dict[str, Any], labels: torch.Tensor, *, gradients: bool) -> dict[str, Any]:
    """Return what run.json says of the form of the model that attacks search."""
    wish = session.config.engine.oracle
    if not seen["deterministic"]:
        wish = "given"  # nothing could be compared
    choice = oracle.choose(session.passes, session.first, labels, wish, gradients=gradients)
    return {**choice.facts(), "precisions": sorted({stage.precision for stage in session.stages})}


def _fits(config: Config, classifier: Classifier, dataset: Dataset) -> None:
    """Refuse an attack or a goal that needs more classes than there are, or an attack made for other images."""
    if (sentence := config.attack.foreign(plan.digests_of(classifier, dataset))) is not None:
        raise UserError(sentence)
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
