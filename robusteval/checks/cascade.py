"""Checks of AutoAttack's cascade: is it the published protocol, and do its attacks without gradients find more?"""

from typing import Any

import pyarrow as pa

from robusteval.checks.transfer import beaten
from robusteval.checks.verdict import Check, verdict


def checks(run: dict[str, Any], samples: pa.Table) -> list[Check]:
    """Return the checks of a run of several stages; none of others."""
    found = [protocol(run)] if run["attack"]["name"] == "autoattack" else []
    stages = [_attack_of(name) for name in run["plan"]["stages"]]
    if "square" in stages and any(name.startswith(("apgd", "fab")) for name in stages):
        found.append(square(samples))
    return found


def protocol(run: dict[str, Any]) -> Check:
    """Whether the number may be called AutoAttack's: published budgets, full precision."""
    attack = run["attack"]
    if run["plan"]["mode"] == "fast":
        return verdict(
            "protocol",
            "warn",
            "a search in bfloat16 makes no AutoAttack number",
            "use engine.mode=fast+standard",
        )
    if not run["plan"]["published"]:
        return verdict(
            "protocol",
            "warn",
            f"steps={attack['steps']} and queries={attack['queries']} are not AutoAttack's budgets of 100 and 5000, so "
            "this is no AutoAttack number",
            "do not compare it with published ones",
        )
    return verdict("protocol", "pass", f"AutoAttack {attack['version']} with its published stages and budgets")


def square(samples: pa.Table) -> Check:
    """Whether Square, which needs no gradients, broke what attacks by gradients did not."""
    count = sum(name is not None and _attack_of(name) == "square" for name in samples["broken_by"].to_pylist())
    return beaten("square", count, len(samples), "Square")


def _attack_of(stage: str) -> str:
    """Return a stage's name without its precision and radius."""
    return stage.removeprefix("fast-").partition("@")[0]
