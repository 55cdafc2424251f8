"""What the sections of a page are made of, and what a section is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Material:
    """A complete run: its folder, run.json, results.json and table of samples. No section needs model or data."""

    folder: Path
    facts: Mapping[str, Any]
    results: Mapping[str, Any]
    samples: pa.Table

    def class_name(self, index: int) -> str:
        """Return the name of a class; its number where there is no name."""
        names = self.facts["model"].get("class_names")
        return str(index) if names is None or not 0 <= index < len(names) else names[index]


@dataclass(frozen=True)
class Section:
    """A part of the page of a run.

    ``content`` returns the values of the template ``sections/ID.html``, or None where this run has nothing to show
    there, as without the keys that it is about.
    """

    id: str
    title: str
    content: Callable[[Material], dict[str, Any] | None]
