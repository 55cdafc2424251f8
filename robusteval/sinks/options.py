"""Options of the sinks (``logger=none|wandb``)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

_NOT_IN_PROJECT = "/\\#?%:"
_LONGEST_TAG = 64


@dataclass(frozen=True, kw_only=True)
class NoLogger:
    """Send nothing; the run folder is all there is."""

    name: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True)
class WandbLogger:
    """Send the run to Weights & Biases once its results are on disk.

    ``mode=auto`` obeys WANDB_MODE, otherwise goes online where there is an account and offline where there is none.
    ``required`` makes an evaluation fail before its attack where the run could not be sent. ``images`` is how many
    examples are sent, ``rows`` how many rows of the per-sample table (the whole table goes as a file). Timeouts in
    seconds: to begin a run, and to wait for its upload.
    """

    name: Literal["wandb"] = "wandb"
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "robusteval"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    required: bool = False
    init_timeout: Annotated[float, Gt(0), Le(600)] = 8.0
    finish_timeout: Annotated[float, Gt(0), Le(86400)] = 15.0
    images: Annotated[int, Ge(0), Le(108)] = 16
    rows: Annotated[int, Ge(0), Le(200_000)] = 10_000

    def __post_init__(self) -> None:
        if not self.project or set(self.project) & set(_NOT_IN_PROJECT):
            raise ValueError(
                f"project={self.project!r} is no project's name; it must not be empty nor hold any of {_NOT_IN_PROJECT}"
            )
        if bad := [tag for tag in self.tags if not 1 <= len(tag) <= _LONGEST_TAG]:
            raise ValueError(f"tags: {bad[0]!r} is no tag; a tag has 1 to {_LONGEST_TAG} letters")
        if self.required and self.mode == "disabled":
            raise ValueError("required=true contradicts mode=disabled; leave one of them out")


Logger = NoLogger | WandbLogger
