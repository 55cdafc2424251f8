"""What of a run's plan is on the disk and intact, and what is still to come."""

from collections.abc import Mapping
from pathlib import Path

from robusteval.evidence import forensics, images, shards, stopping
from robusteval.evidence.folder import RunFolder

_SHOWN = 12  # chunks that a sentence names one by one


def intact(run: RunFolder, stage: str) -> tuple[dict[int, Path], list[Path]]:
    """Return the intact shards of a stage by chunk, and the files that are not. Touches nothing.

    A shard whose adversarials, or notes on them, are damaged or gone is not intact.
    """
    found, faulty = run.shards(stage).inspect()
    for number, path in list(found.items()):
        named = filter(None, [images.named_by(path, run, stage), forensics.named_by(path, run, stage)])
        if damaged := [kept for kept in named if shards.fault(kept) is not None]:
            faulty.extend([path, *damaged])
            del found[number]
    return found, faulty


def gaps(run: RunFolder) -> dict[int, list[str]]:
    """Return the chunks that are not complete, each with the stages that it lacks, in order."""
    there = {stage: intact(run, stage)[0] for stage in run.stages}
    lacking = {
        number: [stage for stage in run.stages if number not in there[stage]] for number in range(stopping.counted(run))
    }
    return {number: stages for number, stages in lacking.items() if stages}


def in_words(missing: Mapping[int, list[str]], run: RunFolder) -> str:
    """Return how many chunks are missing, and which; of those that lack some stages only, which stages."""
    named = []
    for number, stages in list(missing.items())[:_SHOWN]:
        named.append(str(number) if stages == run.stages else f"{number} ({', '.join(stages)})")
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return f"{len(missing)} of {run.run['plan']['chunks']} chunks are missing: {', '.join(named)}{more}"
