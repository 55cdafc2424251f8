"""Checks of what goes in: the images, their normalisation, the order of the classes, the radius, how many there are."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest

from robusteval.checks.verdict import Check, verdict
from robusteval.metrics.accuracy import wilson

_SURE = 1e-3  # of a test: what chance brings about less often than this is called a finding
_DARK = 1.5 / 255  # images divided by 255 twice are no brighter
_MUCH = 0.2  # of all images: what another normalisation must gain
_SHIFT = 0.02  # of accuracy: what another resize or crop may cost
_WIDE = 0.2  # a 95 % interval wider than this says little
_GREYS = 16  # grey values: published Linf radii on colour images end there
_SDS = (0.229, 0.224, 0.225, 0.2471, 0.2435, 0.2616, 0.2023, 0.1994, 0.2010, 0.5)


def checks(run: dict[str, Any], samples: pa.Table) -> list[Check]:
    """Return the checks of a run's input, from the facts in run.json and the table of samples."""
    facts = run["model_facts"]
    seen = facts.get("input")
    found = [] if seen is None else [brightness(seen), normalisation(seen)]
    found += reference(run, samples)
    found.append(class_order(samples, run["model"]["classes"]))
    if "shape" in facts and run["threat"]["eps"] is not None:
        found.append(radius(run["threat"], facts["shape"]))
    if "stopping" not in run["plan"]:  # otherwise the interval is as wide as was asked for
        found.append(subset(samples))
    return found


def brightness(seen: dict[str, Any]) -> Check:
    """Whether images use the range [0, 1]; what lies outside of it was refused before the run."""
    if seen["high"] > _DARK:
        return verdict("range", "pass", f"images lie in [0, 1], from {seen['low']:.3g} to {seen['high']:.3g}")
    return verdict(
        "range",
        "fail",
        f"no value of the images is above {seen['high']:.2g}, so all are black: they may be divided by 255 twice",
        "give images whose white is 1",
    )


def normalisation(seen: dict[str, Any]) -> Check:
    """Whether another normalisation makes the model right far more often, image by image."""
    n = seen["images"]
    for name, tried in seen["normalisations"].items():
        gained, lost = tried["gained"], tried["lost"]
        # Of a network that answers the same whatever it sees, any change may hit the commonest class.
        various = tried["classes"] >= min(3, seen["labels"]) and seen["labels"] > 1
        if gained - lost > _MUCH * n and various and binomtest(gained, gained + lost).pvalue < _SURE:
            return verdict(
                "normalisation",
                "fail",
                f"{name} the model is right on {seen['right'] + gained - lost} of {n} images instead of "
                f"{seen['right']}: its normalisation is missing, or there twice",
                "state it once, by model.mean and model.sd, and leave it out of the network and the data",
            )
    return verdict("normalisation", "pass", "no other usual normalisation makes the model right much more often")


def reference(run: dict[str, Any], samples: pa.Table) -> list[Check]:
    """Whether clean accuracy is what the model is known for; nothing where that is not known for these data."""
    known = run["model"].get("reference")
    if known is None or run["dataset"]["name"].removesuffix("_samples") != known["dataset"]:
        return []
    right = samples["clean_prediction"].to_numpy() == samples["label"].to_numpy()
    k, n, due = int(np.count_nonzero(right)), len(right), known["accuracy"]
    said = f"{known['source']} says {100 * due:.1f} %"
    if n == 0 or k / n >= due - _SHIFT or binomtest(k, n, due, alternative="less").pvalue >= _SURE:
        return [verdict("reference", "pass", f"clean accuracy is what the model is known for: {said}")]
    return [
        verdict(
            "reference",
            "fail" if k / n < due / 2 else "warn",
            f"clean accuracy is {100 * k / n:.1f} % of {n} images, and {said}",
            "look for a second or missing normalisation, another resize or crop, other weights, or another order of "
            "the classes",
        )
    ]


def class_order(samples: pa.Table, classes: int) -> Check:
    """Whether another order of the classes would make most predictions right.

    The order is fitted on every other image and tried on the rest, in turns.
    """
    labels, said = samples["label"].to_numpy(), samples["clean_prediction"].to_numpy()
    n = len(labels)
    right = said == labels
    if right.mean() > 0.9 if n else True:
        return verdict("class_order", "pass", "predictions and labels agree on the order of the classes")
    fixed: np.ndarray = np.zeros(n, dtype=bool)
    parity = np.arange(n) % 2
    # By rank within the class, since images may come sorted by it.
    for label in np.unique(labels):
        parity[labels == label] = np.arange(np.count_nonzero(labels == label)) % 2
    for part in (0, 1):
        table = np.zeros((classes, classes), dtype=np.int32)
        np.add.at(table, (said[parity != part], labels[parity != part]), 1)
        order = linear_sum_assignment(table, maximize=True)[1]
        fixed[parity == part] = order[said[parity == part]] == labels[parity == part]
    gained, lost = int((fixed & ~right).sum()), int((right & ~fixed).sum())
    constant = np.bincount(labels).max() / n
    most = fixed.mean() >= max(0.5, constant + 0.1) and gained - lost >= 0.1 * n
    if most and binomtest(gained, gained + lost).pvalue < _SURE:
        return verdict(
            "class_order",
            "fail",
            f"clean accuracy is {right.mean():.1%}, and would be {fixed.mean():.1%} with the classes in another order: "
            "the labels are not in the order of the logits",
            "bring both into one order (folders sorted as 0, 1, 10, 2 are a usual cause)",
        )
    if n < 4 * classes:
        return verdict("class_order", "skipped", f"{n} images are too few to tell the order of {classes} classes")
    return verdict("class_order", "pass", "no other order of the classes would make most predictions right")


def radius(threat: dict[str, Any], shape: list[int]) -> Check:
    """Whether the radius can be meant."""
    several = isinstance(threat["eps"], list)
    eps, norm = (threat["eps"][-1] if several else threat["eps"]), threat["norm"]
    size, colour, greys = math.prod(shape), shape[0] == 3, eps * 255
    if eps == 0:
        return verdict(
            "eps",
            "warn",
            "a ball of radius 0 holds the image alone, so robust accuracy is clean accuracy",
            "set threat.eps",
        )
    whole = {"linf": 1.0, "l2": math.sqrt(size), "l1": float(size)}[norm]
    if eps > whole:
        meant = f": {eps:g}/255 may be meant" if norm == "linf" else ""
        return verdict(
            "eps",
            "fail",
            f"a {norm} radius of {eps:g} is larger than the whole range of images, which is {whole:g}{meant}",
            "write radii for images in [0, 1], such as threat.eps=8/255",
        )
    if several:
        return verdict("eps", "pass", f"the {norm} radii are within the range of images")
    if norm == "linf" and colour and greys > _GREYS + 1e-3:
        return verdict(
            "eps",
            "warn",
            f"a Linf radius of {greys:.3g}/255 is beyond what is published for colour images{_normalised(greys)}",
            "write radii for images in [0, 1], not for normalised ones",
        )
    if norm == "linf" and colour and 1e-3 < abs(greys - round(greys)) < 0.1 and round(greys):
        return verdict(
            "eps",
            "warn",
            f"the radius {eps:g} is {greys:.3f}/255, nearly but not quite {round(greys)}/255, so the number is not "
            "that of published results",
            f"write threat.eps={round(greys)}/255",
        )
    if norm == "l2" and round(greys) in range(1, _GREYS + 1) and abs(greys - round(greys)) < 1e-3:
        return verdict(
            "eps",
            "warn",
            f"an L2 radius of {round(greys)}/255 is a usual Linf radius: in L2 it lets each value move by "
            f"{greys / math.sqrt(size):.2g}/255",
            "set threat.norm=linf, or a radius for L2 such as 0.5",
        )
    return verdict("eps", "pass", f"a {norm} radius of {eps:g} is within the range of images")


def _normalised(greys: float) -> str:
    """Say which usual radius the number would be in units of a usual standard deviation, if any."""
    for sd in _SDS:
        times = greys * sd
        if round(times) in (1, 2, 4, 8) and abs(times - round(times)) < 0.01 * times:
            return f", and is {round(times)}/255 in units of normalised images of sd {sd:g}"
    return ""


def subset(samples: pa.Table) -> Check:
    """Whether there are enough images for a number that says something."""
    n = len(samples)
    low, high = wilson(int(np.count_nonzero(samples["robust"].to_numpy(zero_copy_only=False))), n)
    if high - low <= _WIDE:
        return verdict("subset", "pass", f"{n} images: the 95 % interval is {100 * (high - low):.1f} points wide")
    return verdict(
        "subset",
        "warn",
        f"of {n} images the 95 % interval is {100 * (high - low):.0f} points wide, too wide to compare by",
        "evaluate more images",
    )
