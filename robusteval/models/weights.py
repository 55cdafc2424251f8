"""Reading weights without running what is in the file, and putting them into a network without guessing.

Safetensors, or ``torch.load`` with ``weights_only=True``. Whatever else lies in the file is refused, in one sentence.
"""

import hashlib
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from robusteval.downloads import sniff
from robusteval.errors import UserError

StateDict = Mapping[str, Tensor]

# How deep a state dict may lie inside a checkpoint: {"model": {"state_dict": {...}}} has depth 2.
_DEPTH = 3

# What unpickling a damaged or foreign file with weights_only=True may raise, besides the refusal itself.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    OverflowError,
    AssertionError,
    MemoryError,
    OSError,
    struct.error,
)


def read(path: Path, *, key: str | None = None, prefix: str | None = None) -> StateDict:
    """Return the state dict in a file: .safetensors, or a checkpoint that ``torch.save`` wrote.

    A state dict nested in the checkpoint is found where it is the only one; ``key`` names it where there are several
    (``state_dict`` or ``ema.shadow``). ``prefix`` is cut from the start of every name.

    Raises UserError: no such file, a web page, a Git LFS pointer, empty, truncated, more than weights, none, several.
    """
    state = _choose(_loaded(path), path, key)
    return state if prefix is None else _cut(state, prefix, path)


def state_dicts(path: Path) -> dict[str, StateDict]:
    """Return every state dict in a file by its dotted place, "" for the whole. Raises UserError as ``read`` does."""
    loaded = _loaded(path)
    return dict(_state_dicts(loaded)) or {"": _choose(loaded, path, None)}


def fill(network: nn.Module, state: StateDict, *, source: str) -> None:
    """Put ``state`` into ``network``: the same names and shapes, all numbers finite.

    Raises UserError with the difference; where every name differs by a prefix, it names the option that cuts it.
    """
    check_finite(state, source)
    try:
        network.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{source} does not fit the network: {_difference(network, state) or _first_line(error)}"
        ) from error


def fitted(module: nn.Module, namings: Sequence[StateDict], *, source: str, may_lack: Sequence[str] = ()) -> None:
    """Put the first of several namings of the same weights that fills the whole module into it.

    The names ``may_lack`` keep what the module was made with where they are not there. Surplus names are left out: a
    network is its architecture, all of which is filled. Raises UserError with the difference to the nearest where none
    does.
    """
    wanted = module.state_dict()
    due = {
        name: value.shape
        for name, value in wanted.items()
        if name not in may_lack and not name.endswith("num_batches_tracked")
    }
    for state in namings:
        if all(name in state and state[name].shape == shape for name, shape in due.items()):
            module.load_state_dict({name: value for name, value in state.items() if name in wanted}, strict=False)
            return
    nearest = min(namings, key=lambda state: len(due.keys() - state.keys()))
    raise UserError(f"{source} does not fit the network: {_difference(module, nearest)}")


def check_finite(state: StateDict, source: str) -> None:
    """Raise UserError where weights are NaN or infinite."""
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(
                f"{source} holds NaN or infinite numbers in '{name}': its training diverged; use other weights"
            )


def digest_of(module: nn.Module) -> str:
    """Return the sha256 over names, dtypes, shapes and bytes of all weights and buffers of a module, in order of names.

    Buffers that a state dict leaves out, such as mean and sd of the normalisation, count too.
    """
    sha = hashlib.sha256()
    tensors = {**dict(module.named_buffers()), **module.state_dict()}
    for name, value in sorted(tensors.items()):
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            sha.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
            sha.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _loaded(path: Path) -> object:
    _refuse_unsafe_environment()
    start = _start(path)
    return _load_safetensors(path) if _is_safetensors(path, start) else _load_checkpoint(path, start)


def _refuse_unsafe_environment() -> None:
    name = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    if name in os.environ:
        raise UserError(
            f"{name} is set, which lets weight files run code; unset it (weights are read with weights_only=True)"
        )


def _start(path: Path) -> bytes:
    try:
        what = sniff(path)
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UserError(f"the weights {path} cannot be read ({error.strerror}); name an existing file") from error
    if what is not None:
        raise UserError(f"{path} should hold weights, but is {what}; get the file again")
    return start


def _is_safetensors(path: Path, start: bytes) -> bool:
    # A safetensors file begins with the length of its header (8 bytes) and the header, which is JSON.
    return path.suffix == ".safetensors" or start[8:9] == b"{"


def _load_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is no readable safetensors file ({_first_line(error)}); download or save it again"
        ) from error


def _load_checkpoint(path: Path, start: bytes) -> object:
    if start.startswith(b"PK") and not _has_end(path):
        raise UserError(
            f"{path} is truncated: its end is missing ({path.stat().st_size} bytes are there); download or save it "
            "again"
        )
    try:
        with warnings.catch_warnings():
            # About oddities of the file: either it is read all the same, or the error says why not.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error) and start[:1] in (b"\x80", b"P"):
            raise UserError(
                f"{path} holds more than weights (Python objects that could run code when read), so it was not read; "
                "save "
                "model.state_dict() alone, best as .safetensors"
            ) from error
        raise UserError(
            f"{path} is not a file of weights; .safetensors, or what torch.save wrote, is due here"
        ) from error
    except _UNREADABLE as error:
        raise UserError(
            f"{path} is damaged or not a file of weights ({_first_line(error)}); download or save it again"
        ) from error


def _has_end(path: Path) -> bool:
    """Return whether a zip archive has its directory, which stands at its end."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False


def _choose(loaded: object, path: Path, key: str | None) -> StateDict:
    found = dict(_state_dicts(loaded))
    if key is not None:
        if key not in found:
            raise UserError(f"model.key={key}: {path} holds no state dict of that name; there are: {_listed(found)}")
        return found[key]
    if not found:
        inside = (
            f"its keys are {_listed(map(str, loaded))}"
            if isinstance(loaded, Mapping)
            else f"it is a {type(loaded).__name__}"
        )
        raise UserError(f"{path} holds no state dict ({inside}); save model.state_dict()")
    if len(found) > 1:
        raise UserError(f"{path} holds several state dicts ({_listed(found)}); choose one with model.key=NAME")
    return next(iter(found.values()))


def _state_dicts(value: object, where: str = "", depth: int = 0) -> Iterator[tuple[str, StateDict]]:
    """Yield (dotted place, state dict) for every mapping of names to tensors."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return
    if value and all(isinstance(item, Tensor) for item in value.values()):
        yield where, value
    elif depth < _DEPTH:
        for name, item in value.items():
            yield from _state_dicts(item, f"{where}.{name}" if where else name, depth + 1)


def _cut(state: StateDict, prefix: str, path: Path) -> StateDict:
    if not any(name.startswith(prefix) for name in state):
        raise UserError(f"model.prefix={prefix}: no name in {path} begins so; they are {_listed(state)}")
    cut = {name.removeprefix(prefix): value for name, value in state.items()}
    if len(cut) < len(state):
        raise UserError(f"model.prefix={prefix}: without it two names in {path} are the same; give another prefix")
    return cut


def _difference(network: nn.Module, state: StateDict) -> str:
    wanted = network.state_dict()
    missing, extra = [name for name in wanted if name not in state], [name for name in state if name not in wanted]
    parts = []
    if missing:
        parts.append(f"it lacks {len(missing)} of {len(wanted)} names ({_listed(missing)})")
    if extra:
        parts.append(f"it has {len(extra)} that the network lacks ({_listed(extra)})")
    for name, value in wanted.items():
        if name in state and state[name].shape != value.shape:
            parts.append(f"'{name}' is {list(state[name].shape)} where the network has {list(value.shape)}")
            break
    if missing and (prefix := _surplus_prefix(missing, extra)):
        parts.append(f"its names begin with '{prefix}', which a wrapper added: set model.prefix={prefix}")
    return "; ".join(parts)


def _surplus_prefix(missing: list[str], extra: list[str]) -> str:
    """Return what to cut from the names ``extra``: what leaves the ``missing`` ones, else a first part all share."""
    for name in extra:
        prefix = name.removesuffix(missing[0])
        if prefix != name and set(missing) <= {other.removeprefix(prefix) for other in extra}:
            return prefix
    first = extra[0].partition(".")[0] + "." if extra else ""
    shared = all(name.startswith(first) for name in extra) and not any(name.startswith(first) for name in missing)
    return first if shared else ""


def _listed(names: object) -> str:
    every = [str(name) or "(top level)" for name in names]  # pyright: ignore[reportGeneralTypeIssues]
    return ", ".join(every[:3]) + (", ..." if len(every) > 3 else "")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
