"""Studies: experiments that are several evaluations, and a report over all of them.

An experiment whose file has a section ``study`` is run once for each entry of ``study.runs`` (overrides that only that
run has), on everything that the command line names, lists of values included. What is done already is not done again.
"""

import hashlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from robusteval.compose import composed, parse, sweep
from robusteval.errors import UserError
from robusteval.groups import CONF

REPORTS = {"confidence": "robusteval.report.confidence_study:write"}
"""Who reports on a study: a function of the run folders and of the folder to write into."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """An experiment of several runs: the overrides of each, and the name of its report."""

    name: str
    runs: tuple[tuple[str, ...], ...]
    report: str


def named(overrides: Sequence[str], config_dir: str | None) -> Study | None:
    """Return the study that ``experiment=NAME`` names; None where it names none, or a single evaluation.

    Raises UserError where its file is no study, or where an override sets what the study itself sets.
    """
    chosen = [override.value() for override in parse(overrides) if override.key_or_group == "experiment"]
    if not chosen or not isinstance(chosen[-1], str):
        return None
    folders = [CONF, *([] if config_dir is None else [Path(config_dir)])]
    file = next(filter(Path.is_file, (folder / "experiment" / f"{chosen[-1]}.yaml" for folder in folders)), None)
    written = None if file is None else yaml.safe_load(file.read_text(encoding="utf-8"))
    section = written.get("study") if isinstance(written, dict) else None
    if section is None:
        return None
    study = _checked(chosen[-1], section)
    own = {override.key_or_group for run in study.runs for override in parse(run)}
    for override, text in zip(parse(overrides), overrides, strict=True):
        if override.key_or_group in own:
            raise UserError(f"{text}: experiment={study.name} sets {override.key_or_group} itself; leave it out")
    return study


def _checked(name: str, section: Any) -> Study:
    runs = section.get("runs") if isinstance(section, dict) else None
    fits = isinstance(runs, list) and all(
        isinstance(run, list) and all(isinstance(text, str) for text in run) for run in runs
    )
    if not fits or not runs:
        raise UserError(f"experiment={name}: study.runs is a list of lists of overrides, as in [[attack=pgd]]")
    if section.get("report") not in REPORTS:
        raise UserError(f"experiment={name}: study.report={section.get('report')} is none of {', '.join(REPORTS)}")
    return Study(name=name, runs=tuple(map(tuple, runs)), report=section["report"])


def run(study: Study, overrides: Sequence[str], config_dir: str | None) -> int:
    """Run all evaluations of a study, then report on them; return the largest exit code of any."""
    from robusteval.config import build
    from robusteval.sweep import multirun

    folders: list[Path] = []
    for own in study.runs:
        for combination in sweep([*overrides, *own]):
            config = build(composed(combination, config_dir))
            folders.append(Path(config.runs.dir) / config.folder_name)
    code = max(multirun([*overrides, *own], config_dir) for own in study.runs)
    if code:
        return code
    key = hashlib.sha256("\n".join(sorted(folder.name for folder in folders)).encode()).hexdigest()[:10]
    module, _, attribute = REPORTS[study.report].partition(":")
    target = folders[0].parent / f"{study.name}-{key}"
    getattr(importlib.import_module(module), attribute)(folders, target)
    print(target, flush=True)
    return 0
