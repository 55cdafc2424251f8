"""Checks of the search: what a run's attack left standing, against what cheap attacks broke on a few of its images."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import binomtest

from robusteval.checks.verdict import Check, verdict

_FEW = 2  # images: one may be chance
_SHARE = 0.05  # of the images looked at
_LATE = 0.1  # of the passes
_LATE_SHARE = 0.005  # of all images
_FOUND = 0.95  # of planted adversarials, which a sound attack finds (Zimmermann et al. 2022)
_CHANCE = 0.05  # below which it is not chance that fewer were found
_ENOUGH = 8  # images
_LEFT = 0.1  # of images that an attack without a bound may leave standing
# Attacks in steps, whose successes come with the passes they spend.
_IN_STEPS = ("pgd", "mifgsm", "apgd", "square")
# Attacks that look for the nearest point of another class: what they leave standing need not have a high loss.
_TO_THE_BOUNDARY = ("cw", "fab", "fmn")


def checks(run: dict[str, Any], samples: pa.Table, spent: Mapping[str, pa.Table]) -> list[Check]:
    """Return the checks of a run's search; ``spent`` has each stage's {broken, forward_passes} of what entered it."""
    facts = run["model_facts"]
    probes = facts.get("probes", {})
    attack, found = run["attack"]["name"], []
    if "noise" in probes and attack != "noise":
        found.append(noise(probes["noise"], samples))
    if "single_step" in probes and attack != "fgsm":
        found.append(single_step(probes["single_step"], samples, climbs=attack not in _TO_THE_BOUNDARY))
    if attack in _IN_STEPS and run["plan"]["point"] == "first_success" and run["draws"] == 1:
        found.append(rising(spent, len(samples)))
    if "unbounded" in probes:
        found.append(unbounded(probes["unbounded"], facts["input"]["answers"]))
    if "wider" in probes:
        found.append(wider(probes["wider"], samples))
    if "planted" in facts:
        found.append(planted(facts["planted"], run["plan"]))
    return found


def noise(probe: dict[str, Any], samples: pa.Table) -> Check:
    """Whether random points of the ball break what the attack left standing."""
    missed, n = len(_standing(probe, samples) & set(probe["broken"])), len(_seen(probe, samples))
    if missed < _enough(n):
        return verdict("noise", "pass", "random noise breaks hardly anything that the attack left standing")
    return verdict(
        "noise",
        "fail",
        f"random noise of the same radius broke {missed} of {n} images that the attack left standing: it searches in "
        "the wrong direction",
        "use attack=square too, and look at the gradient checks",
    )


def single_step(probe: dict[str, Any], samples: pa.Table, *, climbs: bool = True) -> Check:
    """Whether a single step does better than the attack: breaks what that left standing, or gets further.

    How far it gets counts only where the attack ``climbs`` the loss in the ball.
    """
    standing, seen = _standing(probe, samples), _seen(probe, samples)
    missed = len(standing & set(probe["broken"]))
    if missed >= _enough(len(seen)):
        return verdict(
            "single_step",
            "fail",
            f"a single step broke {missed} of {len(seen)} images that the attack left standing",
            "give the attack more and longer steps and restarts, and look at the gradient checks",
        )
    reached = dict(zip(probe["ids"], probe["loss"], strict=True))
    losses = _losses(samples)
    both = [sample for sample in standing - set(probe["broken"]) if reached[sample] is not None]
    higher = sum(reached[sample] > losses[sample] * (1 + 1e-3) + 1e-6 for sample in both)
    if climbs and len(both) >= 8 and higher > len(both) / 2:
        return verdict(
            "single_step",
            "fail",
            f"a single step reached a higher loss than the attack on {higher} of {len(both)} images that both left "
            "standing: the attack has not arrived anywhere",
            "give it longer steps, or more of them",
        )
    return verdict("single_step", "pass", "a single step does no better than the attack")


def rising(spent: Mapping[str, pa.Table], n: int) -> Check:
    """Whether successes were still coming in the last tenth of the passes, at least in the last step.

    What was not broken has spent the whole budget, and what was broken left at its success.
    """
    late = 0
    for part in spent.values():
        broken = part["broken"].to_numpy(zero_copy_only=False)
        passes = part["forward_passes"].to_numpy()
        if broken.all():
            continue
        budget = int(passes[~broken].max())
        late += int(np.count_nonzero(passes[broken] > budget - max(1, math.ceil(_LATE * budget))))
    if late < max(_FEW + 1, _LATE_SHARE * n):
        return verdict("rising", "pass", "hardly any image was broken in the last tenth of the passes")
    return verdict(
        "rising",
        "warn",
        f"{late} of {n} images were broken in the last tenth of the attack's passes, so more would break more",
        "give the attack more steps or restarts until that ends",
    )


def unbounded(probe: dict[str, Any], answers: int) -> Check:
    """Whether an attack by gradients breaks everything where nothing bounds it; the model gave so many ``answers``."""
    left, n = len(probe["ids"]) - len(probe["broken"]), len(probe["ids"])
    if answers == 1 or n < _ENOUGH:
        why = "the model gives every image the same class" if answers == 1 else f"only {n} images looked at are right"
        return verdict("unbounded", "skipped", f"{why}, so it cannot be said whether an attack without a bound works")
    if left <= max(_FEW - 1, _LEFT * n):
        return verdict("unbounded", "pass", f"without a bound {n - left} of {n} images are broken by gradients")
    return verdict(
        "unbounded",
        "fail",
        f"even without a bound an attack by gradients leaves {left} of {n} images standing, so its gradients mislead",
        "use attack=square too, and an attack adapted to the network",
    )


def wider(probe: dict[str, Any], samples: pa.Table) -> Check:
    """Whether an attack with twice the radius breaks less than the run's own."""
    fell = _seen(probe, samples) - _standing(probe, samples)
    missed, n = len(fell - set(probe["broken"])), len(_seen(probe, samples))
    if missed < _enough(n):
        return verdict("monotone", "pass", "twice the radius breaks what the radius breaks")
    return verdict(
        "monotone",
        "fail",
        f"{missed} of {n} images that the attack broke stand against APGD at twice the radius: robust accuracy rises "
        "with the radius, so gradients mislead",
        "use attack=square too, and an attack adapted to the network",
    )


def planted(seen: dict[str, Any], plan: dict[str, Any]) -> Check:
    """Whether the attack found the adversarials that were planted for it, its gradients alone included."""
    n, found = seen["images"], seen["found"]
    if not n:
        return verdict("planted", "skipped", "no image has a ball of its own in which an adversarial could be planted")
    by_random_search = sum(count for stage, count in seen["by_stage"].items() if _name(stage) == "square")
    by_gradients = found - by_random_search if plan["gradients"] else found
    if by_gradients >= _FOUND * n:
        return verdict("planted", "pass", f"the attack found {found} of {n} planted adversarials")
    what = f"the attack found {found} of {n} planted adversarials"
    if binomtest(by_gradients, n, _FOUND, alternative="less").pvalue >= _CHANCE:
        return verdict("planted", "warn", f"{what}, which may be chance", "give the attack more steps or restarts")
    if found >= _FOUND * n:
        what += f", but {by_random_search} of them only by the random search of Square: gradients mislead"
    return verdict(
        "planted",
        "fail",
        f"{what}; an attack that misses what is known to be there says little about what is not",
        "use a stronger attack, or one adapted to the network",
    )


def _enough(n: int) -> float:
    return max(_FEW, _SHARE * n)


def _name(stage: str) -> str:
    return stage.removeprefix("fast-").partition("@")[0]


def _seen(probe: dict[str, Any], samples: pa.Table) -> set[int]:
    """Return the ids that the probe and the run both judged."""
    return set(probe["ids"]) & set(samples["id"].to_pylist())


def _standing(probe: dict[str, Any], samples: pa.Table) -> set[int]:
    """Return the ids that the probe looked at and that the run left standing."""
    robust = samples["robust"].to_numpy(zero_copy_only=False)
    return set(probe["ids"]) & set(samples["id"].to_numpy()[robust].tolist())


def _losses(samples: pa.Table) -> dict[int, float]:
    """Return the cross-entropy at the kept point of each id."""
    loss = samples["attacked_logsumexp"].to_numpy() - samples["attacked_label_logit"].to_numpy()
    return dict(zip(samples["id"].to_pylist(), np.nan_to_num(loss, nan=np.inf).tolist(), strict=True))
