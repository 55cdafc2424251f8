"""The end of a run whose shards are all there: samples, results, figures, sinks; all of it derived."""

import sys
from collections.abc import Sequence

import pyarrow as pa

from robusteval.config import Config
from robusteval.datasets.base import Dataset
from robusteval.evidence import atomic, derive, failures, forensics, gaps, lock, samples, times
from robusteval.evidence.folder import RunFolder, write_json
from robusteval.report.console import show
from robusteval.report.examples import examples
from robusteval.report.figures import draw
from robusteval.report.gallery import Example
from robusteval.report.page import run as page
from robusteval.sinks.push import push


def derived(run: RunFolder) -> bool:
    """Return whether everything that derives from the shards is there."""
    return run.complete and run.samples_file.is_file() and run.figures.is_dir()


def finish(config: Config, run: RunFolder, dataset: Dataset | None) -> None:
    """Derive samples, results and figures of a run, send it, show it; without ``dataset`` there is no gallery.

    For the holder of a lock. Raises RobustevalError where a shard is missing.
    """
    table = derive.write_samples(run)
    conclude(run, table, [] if dataset is None else examples(run, table, dataset, config.attack))
    push(config.logger, run.path)
    show(run.results(), run.path)


def finish_together(config: Config, run: RunFolder, dataset: Dataset) -> None:
    """Finish a run if this share of it was the last one, otherwise say what is missing.

    Whoever writes the last shard finds all of them, so of several tasks that end at once at least one finishes, and the
    lock lets only one.
    """
    if missing := gaps.gaps(run):
        print(
            f"robusteval: {run.path}: shard {config.runtime.shard} is done; {gaps.in_words(missing, run)}; the shard "
            f"that ends last finishes the run, or robusteval merge {run.path}",
            file=sys.stderr,
        )
        return
    try:
        with lock.hold(run.locks, lock.FINAL, against=[lock.FINAL]):
            if not derived(run):
                finish(config, run, dataset)
    except lock.Held:
        print(f"robusteval: {run.path}: all shards are done, and another task derives the results", file=sys.stderr)


def conclude(run: RunFolder, table: pa.Table, shown: Sequence[Example]) -> None:
    """Draw the figures with these examples, write results.json, then the page; what failed before is forgotten."""
    results = derive.results(run, table)
    passes = results["cost"]["forward_passes"] + results["cost"]["backward_passes"]
    seconds = times.total(run)
    results["cost"] |= {
        "seconds": round(seconds, 3),
        "passes_per_second": round(passes / seconds, 1) if seconds else None,
    }
    results["provenance"] = run.run["provenance"]
    results["sinks"] = []
    with atomic.guarded(run.figures):
        draw(
            run.path,
            results,
            table,
            shown,
            results.get("survey"),
            fooling=samples.fooling_by_class(run) if "survey" in results else None,
            maps=forensics.maps(run),
            class_names=run.run["model"].get("class_names"),
        )
    write_json(run.results_file, results)
    with atomic.guarded(run.report):
        page.write(run, results, table)
    failures.forget(run)
