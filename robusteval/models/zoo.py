"""RobustBench's architectures out of the user's installation, without its own way of loading.

``import robustbench`` fails as installed from the registry: its front, ``__init__``, pulls in the evaluation, which
wants ``autoattack`` (the registry has ``pyautoattack``), ``pkg_resources`` and more. The networks need none of that,
so the package is entered without its front: a module object with its path stands in for it while
``robustbench.model_zoo`` is imported, and is taken away again. Nothing in the environment is changed, and a
``robustbench`` that is already imported is used as it is.

Weights are read by us, with ``weights_only=True``: RobustBench's loader would run what is in a file.
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from robusteval.attacks.reference import library
from robusteval.classifier import Preprocessing
from robusteval.errors import UserError
from robusteval.models import timm as timms
from robusteval.models.weights import StateDict, check_finite, fitted, state_dicts

_PACKAGE = "robustbench"
_REAL_ONE = f"pip install --force-reinstall --no-deps {_PACKAGE}"
# Without its dependencies, since it holds timm at an older version than ours.
INSTALL = f"pip install 'robusteval[robustbench]' && pip install --no-deps {_PACKAGE}"
_EXTRA = ("torchdiffeq", "geotorch")
# Buffers that the architectures set themselves and the files may lack.
_NORMALISATION = ("mu", "sigma", "mean", "std", "normalize.mean", "normalize.std")
# What wrappers put before the names, in the order in which it is cut.
_WRAPPERS = ("module.", "model.")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the zoo makes one network: ``ids`` of its files at Google Drive; none where timm knows an address instead."""

    dataset: str
    threat: str
    name: str
    make: Callable[[], nn.Module]
    ids: tuple[str, ...]
    several: bool
    preprocessing: str | None

    @property
    def timm_name(self) -> str:
        """The name under which RobustBench registers a network with timm, where it does."""
        return f"{self.name.lower().replace('-', '_')}_{self.dataset}_{self.threat.lower()}"


def installed() -> bool:
    """Return whether there is a package robustbench that can be imported so."""
    return trouble() is None


@cache
def trouble() -> str | None:
    """Return in a sentence why RobustBench's networks cannot be had, and what to do; None where they can."""
    if not library.installed(_PACKAGE):
        return f"model=robustbench needs the package {_PACKAGE}, which is not installed: {INSTALL}"
    if _is_torchattacks_copy():
        return (
            f"the installed {_PACKAGE} is the old copy that torchattacks' wheel brings along, with other networks; put "
            f"the real one over it: {_REAL_ONE}"
        )
    try:
        _model_zoo()
    except ModuleNotFoundError as error:
        if error.name in _EXTRA:
            return f"model=robustbench needs the package {error.name} too, which is not installed: {INSTALL}"
        return f"the package {_PACKAGE} fails to import ({error}); put a whole one in its place: {_REAL_ONE}"
    except (ImportError, AttributeError, TypeError, ValueError, RuntimeError, OSError) as error:
        return (
            f"the package {_PACKAGE} fails to import ({type(error).__name__}: {error}); put a whole one in its place: "
            f"{_REAL_ONE}"
        )
    return None


def names(dataset: str, threat: str) -> list[str]:
    """Return the names that the installed zoo has on a board, in its order."""
    return list(_tables().get((dataset, threat), {}))


def recipe(dataset: str, threat: str, name: str) -> Recipe:
    """Return how the installed zoo makes a network. Raises UserError where it does not know the name."""
    table = _tables().get((dataset, threat), {})
    if name not in table:
        version = library.version(_PACKAGE)
        raise UserError(
            f"model.name={name}: the installed {version} does not have it for {dataset} and {threat}; bring it up to "
            "date: pip install --upgrade --no-deps robustbench"
        )
    given = table[name]
    ids = given.get("gdrive_id") or ()
    return Recipe(
        dataset=dataset,
        threat=threat,
        name=name,
        make=given["model"],
        ids=(ids,) if isinstance(ids, str) else tuple(ids),
        several=isinstance(ids, list | tuple) and bool(ids),
        preprocessing=given.get("preprocessing"),
    )


def build(recipe: Recipe) -> nn.Module:
    """Return the network with fresh weights, made by RobustBench's own code. Downloads nothing."""
    with library.quiet():
        if recipe.ids:
            return recipe.make()
        return _of_timm(recipe)


def stated(recipe: Recipe) -> Preprocessing | None:
    """Return how pictures become inputs of a network that RobustBench registers with timm."""
    if recipe.ids:
        return None
    return timms.preprocessing_of(address(recipe), recipe.name)


def address(recipe: Recipe) -> Mapping[str, Any]:
    """Return what timm knows of a network that RobustBench registered with it, its address among it."""
    import timm

    if not timm.is_model(recipe.timm_name):
        raise UserError(
            f"model.name={recipe.name}: the installed robustbench names no weights for it; choose another network"
        )
    config = timm.get_pretrained_cfg(recipe.timm_name, allow_unregistered=False)
    if config is None or not config.url:
        raise UserError(
            f"model.name={recipe.name}: robustbench states no address of its weights to this timm {timm.__version__}; "
            "name a folder that holds them with model.dir=DIR"
        )
    return config.to_dict()


def fill(network: nn.Module, files: Sequence[Path]) -> None:
    """Put the weights of the files into the network: one file, or one for each part of an ensemble.

    Raises UserError: no weights, more than weights, other names or shapes than the network's.
    """
    for path, parts in zip(files, _parts(network, len(files)), strict=True):
        with torch.serialization.safe_globals(_HARMLESS):
            found = state_dicts(path)
        for module, place in parts:
            state = _chosen(found, place, path)
            check_finite(state, str(path))
            fitted(module, list(_namings(state, module)), source=str(path), may_lack=_NORMALISATION)


# Beside tensors, what people save with a checkpoint: numbers of numpy and the options of the training script.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np._core.multiarray.scalar,  # pyright: ignore[reportAttributeAccessIssue]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # as numpy 1 wrote it  # pyright: ignore[reportAttributeAccessIssue]
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
]


def _is_torchattacks_copy() -> bool:
    brings = False
    with suppress(importlib.metadata.PackageNotFoundError):
        files = importlib.metadata.distribution("torchattacks").files or []
        brings = any(file.parts[0] == _PACKAGE for file in files)
    try:
        importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return brings
    return brings and library.overwritten(_PACKAGE)


@contextmanager
def _entered() -> Iterator[None]:
    """While the block runs, the package robustbench is there without its front having run."""
    spec = None if _PACKAGE in sys.modules else importlib.util.find_spec(_PACKAGE)
    if spec is None:
        yield
        return
    sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[_PACKAGE]


@cache
def _model_zoo() -> Any:
    with _entered(), library.quiet():
        return importlib.import_module(f"{_PACKAGE}.model_zoo")


def _tables() -> dict[tuple[str, str], Mapping[str, Mapping[str, Any]]]:
    return {
        (dataset.value, threat.value): table
        for dataset, threats in _model_zoo().model_dicts.items()
        for threat, table in threats.items()
    }


def _of_timm(recipe: Recipe) -> nn.Module:
    import timm

    classes = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}[recipe.dataset]
    return timm.create_model(recipe.timm_name, num_classes=classes, pretrained=False)


def _parts(network: Any, count: int) -> list[list[tuple[nn.Module, str | None]]]:
    """Return for each file the parts of the network that it fills, with the place in the file where that is named."""
    if count == 1:
        return [[(network, None)]]
    if (mixed := getattr(network, "comp_model", None)) is not None:
        return [*([(member, None)] for member in mixed.models), [(mixed.policy_net, "model"), (mixed.bn, "bn")]]
    if (standard := getattr(network, "std_model", None)) is not None:
        return [[(standard, None)], [(network.rob_model, None)]]
    return [[(member, None)] for member in network.models]


def _chosen(found: Mapping[str, StateDict], place: str | None, path: Path) -> StateDict:
    """Return the state dict that RobustBench takes: the last epoch's where there are two, else the usual place's."""
    wanted = [place, f"state_dict.{place}"] if place else ["last.state_dict", "last", "state_dict", ""]
    for name in wanted:
        if name in found:
            return found[name]
    if place is None and len(found) == 1:
        return next(iter(found.values()))
    there = ", ".join(name or "(top level)" for name in found) or "none"
    raise UserError(
        f"{path} does not hold what RobustBench's file of that name does (state dicts: {there}); get it again"
    )


def _namings(state: StateDict, module: nn.Module) -> Iterator[StateDict]:
    """Yield the state under the names that it may have for the module: wrappers' prefixes cut or added, or as timm's
    own filter for older checkpoints of the architecture would name it."""
    cut = [state]
    for wrapper in _WRAPPERS:
        cut.append({name.removeprefix(wrapper): value for name, value in cut[-1].items()})
    for names_ in reversed(cut):
        yield names_
        yield {f"model.{name}": value for name, value in names_.items()}
    inner = getattr(module, "model", module)
    adapt = getattr(sys.modules.get(type(inner).__module__), "checkpoint_filter_fn", None)
    if adapt is not None:
        # It was written for checkpoints of one family, and raises what it will on others: then it does not apply.
        with suppress(KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError):
            adapted = adapt(dict(cut[-1]), inner)
            yield adapted
            yield {f"model.{name}": value for name, value in adapted.items()}
