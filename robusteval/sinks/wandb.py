"""Weights & Biases: replays a finished run folder as one W&B run.

The run is opened late, after the results are on disk, so that nothing of W&B can delay or end an attack. Without an
account it is kept offline in the run folder; where the server does not answer, too. All files of W&B stay there.
"""

import hashlib
import importlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robusteval.errors import RobustevalError
from robusteval.report.flags import EXPLAINED, dagger
from robusteval.sinks import content
from robusteval.sinks.options import WandbLogger

_LEGACY = {"dryrun": "offline", "run": "online"}
# What we set where the user did not. Error reporting looks up a server's name even offline. One request may take six
# seconds, not twenty, so that a server which dies in the middle costs less than half a minute in all.
_PREFERRED = {"WANDB_ERROR_REPORTING": "false", "WANDB_HTTP_TIMEOUT": "6"}


@dataclass(frozen=True, kw_only=True)
class Mode:
    """How W&B will be used (online, offline, disabled, missing), what was asked for, and what stood in the way."""

    name: str
    asked: str | None = None
    errors: tuple[str, ...] = ()


def require(logger: WandbLogger) -> None:
    """Raise RobustevalError where the run could not be sent, before any work is done; takes up to 30 s."""
    with _environment({}):
        mode = _resolve(logger)
    if mode.errors or not (mode.name == "online" or mode.name == mode.asked == "offline"):
        why = "; ".join(mode.errors) or (
            "WANDB_MODE=disabled" if mode.name == "disabled" else "no account on this machine"
        )
        raise RobustevalError(
            f"logger.required=true, but nothing could be sent to W&B ({why}); run 'wandb login', or set "
            "logger.mode=offline or logger.required=false"
        )


def push(logger: WandbLogger, folder: Path) -> dict[str, Any]:
    """Send a finished run and return its entry {name, mode, where, errors} for results.json, whatever W&B does.

    ``mode`` is what came about: online, offline, disabled, missing (no wandb) or failed. ``where`` is the run's page,
    or its place within the run folder.
    """
    own = folder.resolve() / "wandb"
    with _environment({"WANDB_DATA_DIR": str(own / "data"), "WANDB_CACHE_DIR": str(own / "cache")}):
        mode = _resolve(logger)
        if mode.name in ("disabled", "missing"):
            return _entry(mode.name, None, mode.errors)
        errors = list(mode.errors)
        identity = run_id(folder)
        # W&B's service holds the id of a run that failed to begin, so the offline run after it has another.
        attempts = (
            {"online": identity, "offline": f"{identity}-offline"} if mode.name == "online" else {"offline": identity}
        )
        for name, chosen in attempts.items():
            with _noting(errors, f"no {name} run could be begun"):
                run = _open(logger, folder, name, chosen)
                return _entry(name, *_replay(run, logger, folder, name, errors))
        return _entry("failed", None, errors)


def run_id(folder: Path) -> str:
    """Return the id of the W&B run: the same whenever this evaluation is sent, so that it is updated, not doubled."""
    return hashlib.sha256(content.results(folder)["fingerprint"].encode()).hexdigest()[:16]


def _resolve(logger: WandbLogger) -> Mode:
    try:
        wandb = _client()
    except ImportError:
        return Mode(name="missing", errors=("wandb is not installed: pip install wandb",))
    asked = logger.mode if logger.mode != "auto" else os.environ.get("WANDB_MODE") or None
    asked = _LEGACY.get(asked or "", asked)
    if asked in ("offline", "disabled"):
        return Mode(name=asked, asked=asked)
    errors: list[str] = []
    account = False
    with _noting(errors, "no login"):
        account = wandb.login(prompt=False)
    if account:
        return Mode(name="online", asked=asked)
    if asked == "online" and not errors:
        errors.append("no account on this machine")
    return Mode(name="offline", asked=asked, errors=tuple(errors))


def _client() -> Any:
    """Import W&B when it is needed: 0.4 s that no other command should cost."""
    wandb = importlib.import_module("wandb")
    if not hasattr(wandb, "init"):  # a folder called wandb in the working directory imports too, as an empty package
        raise ImportError("only a folder called wandb was found")
    return wandb


def _open(logger: WandbLogger, folder: Path, mode: str, identity: str) -> Any:
    wandb = _client()
    results = content.results(folder)
    (folder / "wandb").mkdir(exist_ok=True)
    if mode == "offline":
        # A replay is whole, so it replaces an earlier one: sent both, W&B would hold everything twice.
        for earlier in (folder / "wandb").glob(f"offline-run-*-{run_id(folder)}*"):
            shutil.rmtree(earlier)
    about = (results["attack"]["name"], results["dataset"]["name"], results["threat"]["norm"])
    return wandb.init(
        project=logger.project,
        entity=logger.entity,
        group=logger.group,
        job_type="evaluation",
        name=folder.resolve().name + dagger(results),
        notes=EXPLAINED if dagger(results) else None,
        tags=list(dict.fromkeys([*logger.tags, *(word[:64] for word in about)])),
        config=content.config(folder),
        id=identity,
        resume="allow" if mode == "online" else None,
        dir=str(folder.resolve()),
        mode=mode,
        reinit="create_new",
        settings=wandb.Settings(
            console="off",
            silent=True,
            init_timeout=logger.init_timeout,
            finish_timeout=logger.finish_timeout,
            finish_timeout_raises=True,
            table_raise_on_max_row_limit_exceeded=True,
            disable_job_creation=True,
            save_code=False,
            x_disable_stats=True,
            x_save_requirements=False,
        ),
    )


def _replay(run: Any, logger: WandbLogger, folder: Path, mode: str, errors: list[str]) -> tuple[str | None, list[str]]:
    where = run.url if mode == "online" else str(Path(run.dir).parent.relative_to(folder.resolve()))
    exit_code = 1
    try:
        with _noting(errors, "the run was not sent whole"):
            _send(run, logger, folder)
            exit_code = 0
    finally:
        with _noting(errors, "the upload did not end"):
            run.finish(exit_code=exit_code)
    return where, errors


def _send(run: Any, logger: WandbLogger, folder: Path) -> None:
    wandb = _client()
    results = content.results(folder)
    tables = content.tables(results)
    if logger.rows:
        tables["samples"] = content.samples(folder, logger.rows)
    figures = {f"figures/{name}": wandb.Image(str(path)) for name, path in content.figures(folder).items()}
    pictures = [wandb.Image(str(path), caption=words) for path, words in content.examples(folder, logger.images)]
    run.log(
        {
            **content.numbers(results),
            **{
                path: wandb.Table(columns=rows.columns, data=rows.rows, allow_mixed_types=True)
                for path, rows in tables.items()
            },
            **figures,
            **({"examples": pictures} if pictures else {}),
        }
    )
    artifact = wandb.Artifact(f"evaluation-{run_id(folder)}", type="evaluation")
    for name in ("results.json", "samples.parquet"):
        artifact.add_file(str(folder / name), skip_cache=True)
    run.log_artifact(artifact)


def _entry(mode: str, where: str | None, errors: list[str] | tuple[str, ...]) -> dict[str, Any]:
    return {"name": "wandb", "mode": mode, "where": where, "errors": list(errors)}


@contextmanager
def _noting(errors: list[str], what: str) -> Iterator[None]:
    """Note a failure of W&B or of the network instead of raising it: the results are on disk, no sink may cost them."""
    try:
        yield
    except Exception as error:
        # W&B's errors share no base class: its package tells them. What is neither its nor the network's is our bug.
        if not (isinstance(error, OSError) or type(error).__module__.partition(".")[0] == "wandb"):
            raise
        errors.append(f"{what}: {' '.join(str(error).split()) or type(error).__name__}")


@contextmanager
def _environment(places: dict[str, str]) -> Iterator[None]:
    """Keep W&B quiet and its files in ``places`` while the block runs."""
    wanted = {
        "WANDB_SILENT": "true",
        **{name: os.environ.get(name, ours) for name, ours in _PREFERRED.items()},
        **places,
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
