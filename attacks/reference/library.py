"""What the adapters share: is the library there, does it have what was named, and does it keep quiet."""

import base64
import contextlib
import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

Option = bool | int | float | str | list[int] | list[float] | None
Options = dict[str, Option]


def installed(module: str) -> bool:
    """Return whether a top-level module is there, without importing it."""
    return importlib.util.find_spec(module) is not None


def load(module: str) -> Any:
    """Import a library without what it warns of on the way."""
    with quiet():
        return importlib.import_module(module)


def version(module: str) -> str | None:
    """Return a library's name and version as installed; None where it is not."""
    if not installed(module):
        return None
    try:
        return f"{module} {importlib.metadata.version(module)}"
    except importlib.metadata.PackageNotFoundError:  # a plain folder on the path
        return f"{module} of unknown version"


def trouble(method: str, module: str, extra: str) -> str | None:
    """Return in a sentence why a library cannot be used: not installed, or broken; None where it can."""
    if not installed(module):
        return f"attack={method} needs the package {module}, which is not installed: pip install 'robusteval[{extra}]'"
    try:
        load(module)
    except (ImportError, AttributeError, TypeError, ValueError, RuntimeError, OSError) as error:
        cause = clash() or f"reinstall it: pip install --force-reinstall 'robusteval[{extra}]'"
        return f"attack={method}: the package {module} fails to import ({type(error).__name__}: {error}); {cause}"
    return None


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Keep a library's prints, warnings and the named loggers from the terminal while the block runs."""
    levels = [(logging.getLogger(name), logging.getLogger(name).level) for name in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger, _ in levels:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in levels:
                logger.setLevel(level)


def batches(x: Tensor, y: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels, ``size`` at a time."""
    yield from zip(x.split(size), y.split(size), strict=True)


def unknown(key: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for a name that is not among the known ones."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    suggestion = f"; did you mean '{near[0]}'?" if near else ""
    return f"{key}={name} is not known{suggestion} (known: {', '.join(known) or 'none'})"


def parameters(kind: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters that a class is made with, by name."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: given for name, given in inspect.signature(kind).parameters.items() if given.kind in named}


def misfit(kind: type, options: Options | None, given: Mapping[str, str]) -> str | None:
    """Return in a sentence what is wrong with the options for making a class, or None.

    ``given`` names the parameters that are not for the user to set, and says where each comes from.
    """
    takes = parameters(kind)
    for name in options or {}:
        if name in given:
            return f"attack.options.{name}: {name} comes from {given[name]}; leave it out"
        if name not in takes:
            free = [other for other in takes if other not in given]
            return unknown(f"attack.options of {kind.__name__}", name, free).replace("=", ": ", 1)
    for name, parameter in takes.items():
        if parameter.default is inspect.Parameter.empty and name not in {**given, **(options or {})}:
            return (
                f"attack.name={kind.__name__} needs attack.options.{name}; set it, as in attack.options={{{name}: …}}"
            )
    return None


def numbers(options: Options | None) -> dict[str, Any]:
    """Return the options with fractions such as 2/255 as numbers, and lists as tuples."""
    return {name: _number(value) for name, value in (options or {}).items()}


def _number(value: Option) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str):
        fraction = re.fullmatch(r"\s*(\d+\.?\d*)\s*/\s*(\d+\.?\d*)\s*", value)
        if fraction and float(fraction[2]):
            return float(fraction[1]) / float(fraction[2])
    return value


def clash() -> str | None:
    """Return in a sentence what torchattacks' wheel has done to this environment, or None.

    It brings an old copy of the package robustbench along, which overwrites the real one where it comes later, and it
    asks for a requests of 2020, which pip then gives to all.
    """
    try:
        importlib.metadata.distribution("torchattacks")
    except importlib.metadata.PackageNotFoundError:
        return None
    harm = []
    if overwritten("robustbench"):
        harm.append("overwrote robustbench (mend it: pip install --force-reinstall --no-deps robustbench)")
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        if importlib.metadata.version("requests").startswith("2.25."):
            harm.append("holds requests at 2.25 (mend it: pip install --upgrade requests, which torchattacks survives)")
    return f"torchattacks' wheel {' and '.join(harm)}, so keep it in an environment of its own" if harm else None


def overwritten(distribution: str) -> bool:
    """Return whether a file of an installed distribution is no longer the one that it came with."""
    try:
        files = importlib.metadata.distribution(distribution).files or []
    except importlib.metadata.PackageNotFoundError:
        return False
    return any(file.hash is not None and file.suffix == ".py" and _differs(file) for file in files)


def _differs(file: importlib.metadata.PackagePath) -> bool:
    try:
        data = file.locate().read_bytes()  # pyright: ignore[reportAttributeAccessIssue]
    except OSError:
        return True
    due = file.hash
    if due is None or due.mode != "sha256":
        return False
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=") != due.value
