"""Experiments that are sweeps: a file in conf/experiment names the values, and one plain command runs them all.

``sweep`` in such a file is a list of overrides, as on the command line; what the user names himself replaces the entry
of the same key. ``fixed`` are overrides that he may not replace. ``study`` names what tables the finished runs. All are
read before Hydra composes anything, since its sweeper acts on the command line alone. Imports no torch.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from robusteval.compose import parse
from robusteval.errors import UserError
from robusteval.groups import CONF

KEYS = ("sweep", "fixed", "study")
"""What the file of an experiment may hold beside a configuration."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The overrides of a sweep, and which study tables its runs, if any."""

    overrides: list[str]
    study: str | None


def asked(overrides: Sequence[str], config_dir: str | None) -> Sweep | None:
    """Return the sweep that ``experiment=NAME`` among the overrides asks for; None where it is none.

    Raises UserError where the file's ``sweep`` is no list of overrides, or where the user sets what is the file's.
    """
    named = {override.key_or_group: override for override in parse(overrides)}
    experiment = named.get("experiment")
    if experiment is None or experiment.is_sweep_override() or not isinstance(experiment.value(), str):
        return None
    path = _file(str(experiment.value()), config_dir)
    if path is None:
        return None
    try:
        written = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: this cannot be read as YAML ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(written, dict) or "sweep" not in written:
        return None
    entries, fixed = _overrides(path, "sweep", written["sweep"]), _overrides(path, "fixed", written.get("fixed", []))
    keys = [override.key_or_group for override in parse(entries)]
    # What a sweep over experiments compares are their attacks.
    own = {*(override.key_or_group for override in parse(fixed)), *(["attack"] if "experiment" in keys else [])}
    for text, override in zip(overrides, parse(overrides), strict=True):
        if override.key_or_group in own:
            raise UserError(
                f"{text}: experiment={experiment.value()} sets {override.key_or_group} itself; leave it out"
            )
    kept = [entry for entry, key in zip(entries, keys, strict=True) if key == "experiment" or key not in named]
    # A sweep over other experiments stands for this one, which then has nothing else to say.
    users = [
        text
        for text, override in zip(overrides, parse(overrides), strict=True)
        if not (override.key_or_group == "experiment" and "experiment" in keys)
    ]
    return Sweep(overrides=[*kept, *fixed, *users], study=written.get("study"))


def _overrides(path: Path, key: str, written: object) -> list[str]:
    if not isinstance(written, list) or not all(isinstance(entry, str) for entry in written):
        raise UserError(f"{path}: {key} is a list of overrides, such as [model.mode=zeros,reflect, seed=0,1]")
    return written


def _file(name: str, config_dir: str | None) -> Path | None:
    if not re.fullmatch(r"[\w/.-]+", name) or ".." in name:
        return None
    folders = [CONF, *([] if config_dir is None else [Path(config_dir)])]
    found = [folder / "experiment" / f"{name}.yaml" for folder in folders]
    return next((path for path in reversed(found) if path.is_file()), None)
