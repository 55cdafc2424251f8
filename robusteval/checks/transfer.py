"""Whether attacks that know nothing of the network's gradients do better than those that do."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from robusteval.checks.verdict import Check, verdict

# By how much of robust accuracy they may lower it after attacks by gradients; AutoAttack's own bound, for Square.
_SURPRISE = 0.002
# From here on the number is theirs, and since they are weak attacks, it bounds robustness poorly.
_ALARM = 0.05


def checks(run: dict[str, Any], samples: pa.Table) -> list[Check]:
    """Return the check of a run over saved adversarials: its own network's first, if they are there, then others'."""
    origins = run["plan"].get("origins")
    if not origins:
        return []
    own = [o["model_digest"] == run["digests"]["model"] and o["gradients"] for o in origins]
    if not own[0] or all(own):
        return [
            verdict(
                "transfer",
                "skipped",
                "adversarials of other networks bound robustness poorly, and there is no white-box run to compare with",
                "name a white-box run on this network first in attack.runs, or merge this run with one",
            )
        ]
    foreign = {o["stage"] for o, mine in zip(origins, own, strict=True) if not mine}
    breakers = [str(name).partition("@")[0] for name in samples["broken_by"].to_pylist()]
    return [
        beaten("transfer", sum(name in foreign for name in breakers), len(samples), "adversarials of other networks")
    ]


def merged(names: Sequence[str], gradients: Sequence[bool], broken: np.ndarray) -> list[Check]:
    """Return the check of a merge of attacks, from what each broke [parts, n] and whether it uses gradients."""
    if not any(gradients) or all(gradients):
        return []
    by_gradients = broken[np.array(gradients)].any(0)
    without = ", ".join(name for name, uses in zip(names, gradients, strict=True) if not uses)
    return [beaten("black_box", int((broken.any(0) & ~by_gradients).sum()), broken.shape[1], without)]


def beaten(name: str, count: int, n: int, who: str) -> Check:
    """Return the check on how many of n images only attacks without this network's gradients broke."""
    share = count / n if n else 0.0
    if share <= _SURPRISE:
        return verdict(name, "pass", f"{who}: hardly anything that attacks by gradients had not broken")
    return verdict(
        name,
        "fail" if share > _ALARM and count > 2 else "warn",
        f"{who}: {count} images ({share:.1%}) broken that attacks by this network's gradients had not, a sign that "
        "gradients mislead",
        "give the attacks by gradients more steps and restarts, and try one adapted to the network",
    )
