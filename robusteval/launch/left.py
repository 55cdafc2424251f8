"""Which evaluations of a sweep still have something to do, by their keys and by what is on the disk."""

from collections.abc import Sequence

from robusteval.engine.finish import derived
from robusteval.errors import UserError
from robusteval.evidence import gaps
from robusteval.evidence.folder import RunFolder
from robusteval.launch.evaluation import Evaluation


def left(evaluations: Sequence[Evaluation]) -> list[bool]:
    """Return for each evaluation whether it is to be run.

    A run is done when everything of it is there and sent, a share of a run when its chunks are there. Of a run that
    lacks nothing but its results, or their way to the sink, the first share is run again.
    """
    wanted = [_wanted(evaluation) for evaluation in evaluations]
    begun = {evaluation.run for evaluation, wants in zip(evaluations, wanted, strict=True) if wants}
    for number, evaluation in enumerate(evaluations):
        if evaluation.run not in begun and not _complete(evaluation):
            wanted[number] = True
            begun.add(evaluation.run)
    return wanted


def _complete(evaluation: Evaluation) -> bool:
    run = RunFolder(evaluation.run)
    return derived(run) and (evaluation.config.logger.name == "none" or bool(run.results()["sinks"]))


def _wanted(evaluation: Evaluation) -> bool:
    """Return whether chunks of this very evaluation are missing, as far as can be told."""
    config, run = evaluation.config, RunFolder(evaluation.run)
    if config.runs.fresh:
        return True
    if derived(run):
        return False
    if not run.run_file.is_file():
        return True
    try:
        return any(map(config.runtime.mine, gaps.gaps(run)))
    except UserError:  # the evaluation says what is wrong with its folder
        return True
