"""Which runs carry a dagger: a number whose check failed is never printed without it."""

from collections.abc import Mapping
from typing import Any

DAGGER = "†"
EXPLAINED = f"{DAGGER} a check failed: do not quote this number before reading why"


def flagged(results: Mapping[str, Any]) -> list[str]:
    """Return the ids of the checks that failed."""
    return [check["id"] for check in results["checks"] if check["verdict"] == "fail"]


def dagger(results: Mapping[str, Any]) -> str:
    """Return the mark to put behind a number of these results, with a space; nothing where no check failed."""
    return f" {DAGGER}" if flagged(results) else ""
