"""Checks of a transformed model: what its numbers are about."""

from collections.abc import Mapping
from typing import Any

from robusteval.checks.verdict import Check, verdict


def checks(model: Mapping[str, Any]) -> list[Check]:
    """Return the checks of the transforms that run.json names under ``model``."""
    return [_CHECKS[facts["method"]](facts) for facts in model.get("transforms", ()) if facts["method"] in _CHECKS]


def swap(facts: Mapping[str, Any]) -> Check:
    """A swap is another network than one that was trained with that padding."""
    count, left = len(facts["swapped"]), facts["left"]
    kept = f"; unchanged: {_listed(left)}" if left else ""
    convolutions = f"{count} convolution{'s' * (count != 1)}"
    if facts["mode"] == "zeros":
        return verdict("swap", "pass", f"{convolutions} pad with zeros{kept}")
    return verdict(
        "swap",
        "warn",
        f"{convolutions} got padding={facts['mode']} after training, which the weights never met: this is no network "
        f"trained with that padding (robusteval train recipe=padding makes one){kept}",
    )


def temperature(facts: Mapping[str, Any]) -> Check:
    """On which images the temperature was fitted."""
    return verdict(
        "temperature",
        "pass",
        f"T = {facts['value']:.4g}, fitted on {facts['source']}, where it takes the negative log-likelihood from "
        f"{facts['nll_before']:.4g} to {facts['nll_after']:.4g}; the same T serves clean and attacked images",
    )


_CHECKS = {"padding": swap, "temperature": temperature}


def _listed(left: list[dict[str, str]]) -> str:
    words = [f"{row['layer'] or 'the network itself'} ({row['what']})" for row in left]
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")
