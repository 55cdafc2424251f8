"""From overrides to a plain mapping, by Hydra; and from Hydra's complaints to sentences.

Nothing here imports torch: a misspelt name is answered in well under a second.
"""

import contextlib
import difflib
import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from robusteval.errors import UserError, did_you_mean
from robusteval.groups import Groups, groups, no_option
from robusteval.launch.options import options_of_launchers

# What Hydra raises, besides its own errors, on input that it did not foresee, and what it warns about.
COMPLAINTS = (
    HydraException,
    OmegaConfBaseException,
    yaml.YAMLError,
    UserWarning,
    ValueError,
    TypeError,
    AssertionError,
    AttributeError,
    KeyError,
)
_SEARCHPATH = "hydra.searchpath"


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides by Hydra's grammar; raises UserError naming the one that does not parse."""
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise UserError(_grammar(text)) from error
    return parsed


def sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of every single evaluation of a sweep, in Hydra's order: the product of all comma lists."""
    choices: list[list[str]] = []
    for override, text in zip(parse(overrides), overrides, strict=True):
        if not override.is_sweep_override():
            choices.append([text])
            continue
        try:
            values = list(override.sweep_string_iterator())
        except HydraException as error:  # an interval has no end of values, a glob matches what nobody named
            raise UserError(f"{text}: name the values of a sweep, as in {override.key_or_group}=A,B") from error
        if not values:
            raise UserError(f"{text}: this sweep has no values; name some, as in {override.key_or_group}=A,B")
        choices.append([f"{override.get_key_element()}={value}" for value in values])
    return [list(combination) for combination in itertools.product(*choices)]


def check(overrides: Sequence[str], config_dir: str | None = None) -> None:
    """Raise UserError where an override cannot be meant, as far as names alone tell. Fast: composes nothing."""
    if config_dir is not None and not Path(config_dir).is_dir():
        raise UserError(f"--config-dir {config_dir} is not a folder")
    parsed = parse(overrides)
    searched = any(override.key_or_group == _SEARCHPATH for override in parsed)
    if searched and config_dir is not None:
        raise UserError(
            f"--config-dir {config_dir} and {_SEARCHPATH} came together; name both folders in {_SEARCHPATH}"
        )
    known = groups(config_dir)
    for override, text in zip(parsed, overrides, strict=True):
        key = override.key_or_group
        if not key:
            raise UserError(_grammar(text))
        if override.package is not None:
            raise UserError(f"{text}: a group stays in its place; write {key}=NAME")
        if override.is_delete():
            raise UserError(f"{text}: nothing can be taken out; give {key} a value")
        if not override.is_sweep_override() and key in known:
            value = override.value()
            names = value if key == "transform" and isinstance(value, list) else [value]
            for name in names:
                _check_option(text, key, name, known, searched)
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise UserError(f"{text}: {twice} is named twice; each transform has its place once")
        elif key.startswith("experiment."):
            raise UserError(f"{key}: an experiment has no options; choose one, as in experiment=NAME")
        elif "." not in key and not override.is_hydra_override() and key not in (*known, "seed", "runs"):
            raise UserError(f"{key} is not a known key or group{did_you_mean(key, [*known, 'seed', 'runs'])}")


def composed(overrides: Sequence[str], config_dir: str | None = None) -> dict[str, Any]:
    """Return the resolved mapping of one evaluation, without Hydra's own section.

    Raises UserError: unknown group, option or key (with the nearest one), bad grammar, a sweep where one value is due.
    """
    check(overrides, config_dir)
    for override, text in zip(parse(overrides), overrides, strict=True):
        if override.is_sweep_override():
            raise UserError(f"{text}: several values make a sweep; add -m to run them all")
    try:
        config = _compose(overrides, config_dir)
        mapping = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except COMPLAINTS as error:
        raise UserError(sentence(error, overrides, config_dir)) from error
    if not isinstance(mapping, dict):
        raise UserError("the configuration is not a mapping")
    return {str(key): value for key, value in mapping.items()}


def sentence(error: Exception, overrides: Sequence[str], config_dir: str | None = None) -> str:
    """Return in one sentence what Hydra complains about, beginning with the key."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_option(error.missing_cfg_file, groups(config_dir), error.options or ())
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: this is not YAML ({error.problem})"
    text = str(error)
    if match := re.search(r"Could not override '([^']+)'", text):
        if match[1].startswith("hydra.launcher."):
            near = did_you_mean(match[1].rpartition(".")[2], options_of_launchers())
            return f"{match[1]} is not an option of this launcher{near}; see robusteval --cfg hydra -p hydra.launcher"
        if match[1].startswith("hydra."):
            return f"{match[1]} is not one of Hydra's keys; see robusteval --cfg hydra"
        if (name := _not_chosen(match[1], overrides, config_dir)) is not None:
            return f"{match[1]} is an option of a transform that is not chosen; add transform={name}"
        return f"{match[1]} is not a known key{_near_key(match[1], overrides, config_dir)}"
    said = re.sub(
        r"\w+ raised while resolving interpolation: ", "", (text.strip().splitlines() or [type(error).__name__])[0]
    ).strip("\"'")
    if match := re.search(r"full_key: (\S+)", text):
        if isinstance(error, MissingMandatoryValue):
            return f"{match[1]} has no value; give one, as in {match[1]}=VALUE"
        return f"{match[1]}: {said}"
    culprit = next((o for o in overrides if o.partition("=")[0].lstrip("+") in text), None)
    return f"{culprit}: {said}" if culprit and culprit not in said else said


@contextlib.contextmanager
def application(overrides: Sequence[str], config_dir: str | None) -> Iterator[tuple[Any, list[str]]]:
    """Yield Hydra, set up for our configuration, and the overrides with the user's folder among the places to look."""
    given = list(overrides)
    if config_dir is not None:
        folder = str(Path(config_dir).resolve()).replace("\\", "\\\\").replace('"', '\\"')
        given.append(f'{_SEARCHPATH}=["file://{folder}"]')
    GlobalHydra.instance().clear()
    with initialize_config_module("robusteval.conf", version_base="1.3", job_name="robusteval"):
        yield GlobalHydra.instance().hydra, given


def _compose(overrides: Sequence[str], config_dir: str | None) -> Any:
    with application(overrides, config_dir) as (_, given), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of a search path that is not there
        return compose("config", overrides=given)


def _check_option(text: str, group: str, name: object, known: Groups, searched: bool) -> None:
    if group == "experiment" and name is None:
        return
    if not isinstance(name, str):
        raise UserError(f"{text}: name one of the configurations of {group} ({', '.join(known[group])})")
    if name not in known[group] and not searched:
        raise UserError(no_option(group, name, known))


def _grammar(text: str) -> str:
    key, sign, value = text.partition("=")
    if not sign:
        return f"'{text}' is neither a command nor KEY=VALUE; see robusteval --help"
    if re.search(r"[^\w.+/-]", value, re.ASCII) and "'" not in value and '"' not in value:
        return (
            f"{text}: a value with blanks or special characters needs quotes inside quotes, as in '{key}=\"{value}\"'"
        )
    return f"{text}: this is not KEY=VALUE as Hydra writes it; see robusteval --help"


def _missing_option(file: str, known: Groups, options: Sequence[str]) -> str:
    group, _, name = file.partition("/")
    if group in known:
        return no_option(group, name, known)
    group, _, name = file.rpartition("/")
    return no_option(group, name, {group: list(options)}) if options else f"no configuration named '{file}'"


def _not_chosen(key: str, overrides: Sequence[str], config_dir: str | None) -> str | None:
    """Return the transform whose option a key is, where the command line does not choose it; None for other keys."""
    group, _, rest = key.partition(".")
    name = rest.partition(".")[0]
    if group != "transform" or name not in groups(config_dir)["transform"]:
        return None
    chosen = [override.value() for override in parse(overrides) if override.key_or_group == group]
    listed = any(name == value or (isinstance(value, list) and name in value) for value in chosen)
    return None if listed else name


def _near_key(key: str, overrides: Sequence[str], config_dir: str | None) -> str:
    """Suggest the nearest key of the configuration that the group choices alone would make."""
    chosen = [override for override in overrides if "." not in override.partition("=")[0]]
    try:
        known = _keys(OmegaConf.to_container(_compose(chosen, config_dir), resolve=False))
    except COMPLAINTS:
        return ""
    if difflib.get_close_matches(key, known, n=1, cutoff=0.6):
        return did_you_mean(key, known)
    section = [name for name in known if name.startswith(key.partition(".")[0] + ".")]
    return f" (known: {', '.join(section)})" if section else ""


def _keys(mapping: Any, prefix: str = "") -> list[str]:
    if not isinstance(mapping, dict):
        return [prefix]
    return [key for name, value in mapping.items() for key in _keys(value, f"{prefix}.{name}" if prefix else str(name))]
