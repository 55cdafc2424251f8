"""The user's own files behind a run: what an option names by its path can change under the same key."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from robusteval import region

_NAMED_BY = (("model", "entry"), ("model", "weights"), ("dataset", "path"))


def digests(options: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the sha256 of every file that the options name, by its key; what names no file is left out."""
    found = {}
    for section, name, value in _named(options):
        if not isinstance(value, str):
            continue
        # An entry is FILE.py:function.
        path = Path(value.rpartition(":")[0] if name == "entry" else value).expanduser()
        if path.is_file():
            with path.open("rb") as file:
                found[f"{section}.{name}"] = hashlib.file_digest(file, "sha256").hexdigest()
    confined = options.get("threat", {}).get("region")
    if region.missing(confined) is None and (mask := region.digest(confined)) is not None:
        found["threat.region"] = mask
    return found


def _named(options: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, object]]:
    for section, name in _NAMED_BY:
        yield section, name, options[section].get(name)
    for method, values in options.get("transform", {}).items():
        yield f"transform.{method}", "path", values.get("path")
        for name, value in values.get("options", {}).items():
            yield f"transform.{method}.options", name, value if name in ("entry", "weights") else None


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the keys whose files are there and are not what they were."""
    return [key for key, digest in now.items() if before.get(key, digest) != digest]
