"""``robusteval merge RUN... [--into DIR]``: finish a run, join shards made elsewhere, or take the worst of attacks."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from robusteval.config import Config
from robusteval.datasets.base import Dataset
from robusteval.engine.finish import derived, finish
from robusteval.engine.session import load
from robusteval.errors import RobustevalError, UserError
from robusteval.evidence import gaps, lock
from robusteval.evidence.folder import RunFolder
from robusteval.evidence.repredict import config_of
from robusteval.merge import attacks
from robusteval.merge.join import join, same_plan
from robusteval.report.console import show


def main(argv: Sequence[str]) -> int:
    """Bring runs together and print the folder that holds the whole; return 0 once that is complete.

    Folders of one plan are joined, into the first of them unless ``--into`` names another. Runs of different attacks
    on one model become a run of their own: their worst case for every image. Raises RobustevalError saying what is
    missing, UserError naming the field in which runs differ that must not.
    """
    parser = argparse.ArgumentParser(
        prog="robusteval merge",
        description="Finish a run whose shards are all there; join shards of one plan that were made in different "
        "folders; or take, image by image, the worst of several attacks on one model.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--into", type=Path, metavar="DIR", help="where the whole goes (the first RUN, or for attacks a folder beside)"
    )
    given = parser.parse_args(argv)
    runs = [RunFolder.open(path) for path in given.runs]
    for number, run in enumerate(runs):
        if run.path.resolve() in [other.path.resolve() for other in runs[:number]]:
            raise UserError(f"{run.path} is named twice; name each run once")
    if len({run.run["key"] for run in runs}) > 1:
        whole = attacks.merge(runs, given.into)
    else:
        whole = _one_plan(runs, given.into)
    print(whole.path)
    return 0


def _one_plan(runs: Sequence[RunFolder], into: Path | None) -> RunFolder:
    target = runs[0] if into is None else RunFolder(into)
    if target.run_file.is_file():
        runs = [target, *(run for run in runs if run.path.resolve() != target.path.resolve())]
    elif target.path.is_dir() and any(target.path.iterdir()):
        raise UserError(f"{target.path} is not empty and no run; name a new folder by --into")
    same_plan(runs)
    with lock.hold(target.locks, lock.FINAL):
        join(runs, target)
        whole = RunFolder(target.path)  # its plan may be there only now
        if derived(whole):
            show(whole.results(), whole.path)
            return whole
        if missing := gaps.gaps(whole):
            raise RobustevalError(
                f"{whole.path}: {gaps.in_words(missing, whole)}; run the command of the run again, or merge the folder "
                "that has them"
            )
        config = config_of(whole)
        finish(config, whole, _dataset(config, whole))
    return whole


def _dataset(config: Config, run: RunFolder) -> Dataset | None:
    """Return the images, of which the gallery shows some; None, with a note, where they are not on this machine."""
    missing = config.dataset.missing() or config.model.missing()
    if missing is None:
        _, dataset = load(config)
        if dataset.digest == run.run["digests"]["dataset"]:
            return dataset
        missing = "the images here are not those of the run"
    print(f"robusteval: no gallery of examples ({missing})", file=sys.stderr)
    return None
