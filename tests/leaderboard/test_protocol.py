"""What of a run departs from a board's protocol: each difference alone, in words, and whether it costs the rank."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robusteval.leaderboard.rows import Row
from robusteval.published.robustbench import imagenet_pictures

FGSM = {"name": "fgsm", "version": None, "steps": None}


@pytest.mark.parametrize(
    ("options", "comparable", "said"),
    [
        ({}, True, ()),
        ({"n": 1000}, True, ("n=1000, not 10000",)),
        ({"threat": {"eps": 0.031}}, True, ("eps 0.031, not 8/255",)),
        ({"threat": {"eps": 4 / 255}}, False, ("eps 4/255, not 8/255",)),
        ({"threat": {"eps": [4 / 255, 8 / 255]}}, True, ()),
        ({"threat": {"goal": "top5"}}, False, ("broken means out of the top5",)),
        ({"attack": FGSM}, False, ("fgsm, not AutoAttack: an upper bound",)),
        ({"attack": {"steps": 10}}, False, ("AutoAttack of 10 steps and 5000 queries: an upper bound",)),
        ({"attack": {"version": "plus"}}, True, ("autoattack plus: breaks at least as many",)),
        ({"attack": {"version": "rand"}}, False, ("AutoAttack rand, not standard",)),
        ({"attack": {"name": "reference/autoattack"}}, True, ()),
        ({"plan": {"mode": "fast"}}, False, ("AutoAttack searched in bfloat16 alone: an upper bound",)),
        ({"plan": {"mode": "fast+standard"}}, True, ("searched in bfloat16 first",)),
        ({"facts": {"draws": 20}}, True, ("randomised: mean prediction of 20 passes",)),
        ({"dataset": "cifar10_samples", "n": 20}, True, ("dataset=cifar10_samples", "n=20, not 10000")),
        ({"dataset": "arrays", "zoo": "cifar10/Linf"}, False, ("images of dataset=arrays",)),
    ],
)
def test_each_difference_is_spelt_out(row: Callable[..., Row], options: dict, comparable: bool, said: tuple) -> None:
    found = row("net", 10, **options) if "n" in options else row("net", 5000, **options)
    assert (found.comparable, found.differences) == (comparable, said)
    assert (found.dataset, found.norm) == ("cifar10", "linf")


@pytest.mark.parametrize(
    ("ids", "options", "said"),
    [
        (np.array(imagenet_pictures()) - 1, {}, ()),
        (np.array(imagenet_pictures())[:100] - 1, {}, ("n=100, not 5000",)),
        (np.arange(5000), {}, ("not among the board's images",)),
        (np.array(imagenet_pictures()) - 1, {"zoo": "imagenet/Linf"}, ()),
    ],
)
@pytest.mark.parametrize(
    "pictures", ["resize=256, crop=(224, 224), interpolation='bilinear'", "resize=232, crop=(224, 224)"]
)
def test_pictures_of_imagenet(row: Callable[..., Row], ids: Any, options: dict, said: tuple, pictures: str) -> None:
    facts = {"digests": {"preprocessing": f"Preprocessing({pictures})"}}
    threat = {"eps": 4 / 255}
    found = row("net", [True] * len(ids), dataset="imagenet", ids=ids, facts=facts, threat=threat, **options)
    prepared = () if "256" in pictures or "zoo" in options else (f"pictures: {pictures}, not 256, crop 224",)
    assert found.comparable
    assert found.differences == said + prepared


def test_a_worst_case_with_autoattack_among_its_parts_is_comparable(
    make_run: Callable[..., Path], row: Callable
) -> None:
    worst = {"attack": {"name": "worst of autoattack, square", "version": None}}
    facts = {"parts": [{"name": "autoattack"}, {"name": "square"}]}
    make_run("part", 5, n=10, folder="net/parts/autoattack")
    make_run("part", 5, n=10, folder="net/parts/square", attack={"name": "square"})
    found = row("net", 5, n=10, folder="net", facts=facts, **worst)
    assert found.comparable
    assert "worst of autoattack, square: breaks at least as many" in found.differences


def test_a_failed_check_is_a_dagger(row: Callable[..., Row]) -> None:
    found = row("net", 5000, failed=["gradient", "square"])
    assert (found.marks, found.doubts) == ("†", ("failed checks: gradient, square",))
    assert found.comparable


ZOO = {"zoo": "cifar10/Linf"}  # Wang2023Better_WRN-28-10 has 92.44 % and 67.31 %


@pytest.mark.parametrize(
    ("robust", "options", "said"),
    [
        (6731, {"clean": 0.9244}, ""),
        (6725, {"clean": 0.9244}, ""),  # rounding, and the seeds of the attack
        (6400, {"clean": 0.9244}, "robust 64.00 %, but its entry says 67.31 %: more than sampling"),
        (6731, {"clean": 0.90}, "clean 90.00 %, but its entry says 92.44 %: more than sampling"),
        (660, {"n": 1000, "clean": 0.925}, ""),
        (600, {"n": 1000, "clean": 0.925}, "robust 60.00 %, but its entry says 67.31 %: more than sampling"),
        (8000, {"clean": 0.9244, "attack": FGSM}, ""),  # a weaker attack leaves more
        (6000, {"clean": 0.9244, "attack": FGSM}, "robust 60.00 %, but its entry says 67.31 %: more than sampling"),
        (8000, {"clean": 0.9244, "threat": {"eps": 4 / 255}}, ""),
        (8000, {"clean": 0.50, "dataset": "arrays"}, ""),
    ],
)
def test_a_zoos_run_is_held_against_its_own_entry(
    row: Callable[..., Row], robust: int, options: dict, said: str
) -> None:
    found = row("Wang2023Better_WRN-28-10", robust, **ZOO, **options)
    assert found.disagrees == ((said,) if said else ())
    assert ("≠" in found.marks) == bool(said)


def test_a_namesake_that_is_not_the_zoos_is_not(row: Callable[..., Row]) -> None:
    assert row("Wang2023Better_WRN-28-10", 100).disagrees == ()
