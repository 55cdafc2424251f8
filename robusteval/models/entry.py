"""The user's own code: a function named package.module:function or path/to/file.py:function, imported and called."""

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from torch import nn

from robusteval.classifier import Classifier
from robusteval.errors import UserError, did_you_mean


def missing(entry: str) -> str | None:
    """Return a sentence where the file of an entry does not exist; a module is only known once it is imported."""
    place, _ = _parts(entry)
    if place.endswith(".py") and not Path(place).expanduser().is_file():
        return f"model.entry={entry}: there is no file {Path(place).expanduser().absolute()}; name an existing one"
    return None


def call(entry: str) -> nn.Module | Classifier:
    """Import the function, call it without arguments, and return its network.

    The current folder (for a file: also its own) comes first on ``sys.path`` meanwhile, as if it were a script.

    Raises UserError where it cannot be found, raises, or returns something else.
    """
    place, name = _parts(entry)
    file = Path(place).expanduser().absolute() if place.endswith(".py") else None
    folders = [str(Path.cwd())] if file is None else [str(file.parent), str(Path.cwd())]
    with _first_on_path(folders):
        try:
            module = importlib.import_module(place) if file is None else _import_file(file, entry)
            function = getattr(module, name, None)
            result = function() if callable(function) else None
        except UserError:
            raise
        # The code behind an entry is the user's: it may raise anything, and all of it should be told as theirs.
        except (Exception, SystemExit) as error:
            raise UserError(_account(entry, error)) from error
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"model.entry={entry}: there is no function '{name}' in {place}{did_you_mean(name, known)}")
    if not isinstance(result, nn.Module | Classifier):
        raise UserError(
            f"model.entry={entry} returned a {type(result).__name__}; return a torch.nn.Module or a robusteval "
            "Classifier"
        )
    return result


def _parts(entry: str) -> tuple[str, str]:
    place, colon, name = entry.rpartition(":")
    if not colon or not place or not name.isidentifier():
        raise UserError(
            f"model.entry={entry} names no function; write it package.module:function or path/to/file.py:function"
        )
    return place, name


@contextmanager
def _first_on_path(folders: list[str]) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = folders
    try:
        yield
    finally:
        sys.path[:] = before


def _import_file(file: Path, entry: str) -> ModuleType:
    if sentence := missing(entry):
        raise UserError(sentence)
    # A name of its own, so that a file called like an installed module neither hides it nor is hidden by it.
    name = f"robusteval_entry_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"model.entry={entry}: {file} cannot be imported; name a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _account(entry: str, error: BaseException) -> str:
    """Return one sentence: what the user's code raised, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    where = f" ({Path(last.filename).name}, line {last.lineno})"
    if isinstance(error, SyntaxError) and error.filename:
        where = f" ({Path(error.filename).name}, line {error.lineno})"
    if isinstance(error, ModuleNotFoundError) and str(error.name) == entry.partition(":")[0].partition(".")[0]:
        return f"model.entry={entry}: there is no module '{error.name}' in {Path.cwd()} or among the installed packages"
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    return f"model.entry={entry} raised {type(error).__name__}: {reason}{where}; ROBUSTEVAL_DEBUG=1 shows all of it"
