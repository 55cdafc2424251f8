"""Checks of the search, each on evidence made for it."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from robusteval.checks import search, transfer


def samples(robust: list[int], n: int = 40, loss: float = 0.5) -> pa.Table:
    """Return a table of ids 100, 101 ... of which those in ``robust`` stand, all with the same attacked loss."""
    ids = np.arange(100, 100 + n)
    zero = np.zeros(n)
    return pa.table(
        {"id": ids, "robust": np.isin(ids, robust), "attacked_logsumexp": zero + loss, "attacked_label_logit": zero}
    )


def probe(broken: list[int], loss: float = 0.1, n: int = 20) -> dict[str, Any]:
    return {"ids": list(range(100, 100 + n)), "broken": broken, "loss": [loss] * n}


@pytest.mark.parametrize("check", [search.noise, search.single_step])
def test_a_cheap_attack_that_breaks_what_was_left_standing_is_flagged(check: Any) -> None:
    standing = list(range(100, 110))
    assert check(probe([120, 121]), samples(standing))["verdict"] == "pass", "which the attack broke too"
    assert check(probe([100]), samples(standing))["verdict"] == "pass", "one may be chance"
    assert check(probe([100, 101]), samples(standing))["verdict"] == "fail"


def test_a_single_step_that_gets_further_than_the_attack_is_flagged() -> None:
    standing = list(range(100, 110))
    assert search.single_step(probe([], loss=0.4), samples(standing, loss=0.5))["verdict"] == "pass"
    assert search.single_step(probe([], loss=0.6), samples(standing, loss=0.5))["verdict"] == "fail"
    assert search.single_step(probe([], loss=0.6), samples(standing[:4], loss=0.5))["verdict"] == "pass", "too few"
    nearest = search.single_step(probe([], loss=0.6), samples(standing, loss=0.5), climbs=False)
    assert nearest["verdict"] == "pass", "an attack that walks to the boundary does not raise the loss"
    missed = search.single_step(probe(standing, loss=0.6), samples(standing, loss=0.5), climbs=False)
    assert missed["verdict"] == "fail", "what a single step breaks counts against it all the same"


def spent(passes: list[int], broken: list[bool]) -> dict[str, pa.Table]:
    return {"pgd": pa.table({"broken": broken, "forward_passes": passes})}


def test_successes_in_the_last_tenth_of_the_passes_are_flagged() -> None:
    standing = [101] * 90
    late, early = [95, 97, 100], [5, 20, 40, 60, 80, 90]
    flags = [False] * 90
    assert search.rising(spent(standing + early, flags + [True] * 6), 100)["verdict"] == "pass"
    assert search.rising(spent(standing + early + late, flags + [True] * 9), 100)["verdict"] == "warn"
    assert search.rising(spent(standing + late[:2], flags + [True] * 2), 100)["verdict"] == "pass"
    assert search.rising(spent(late, [True] * 3), 100)["verdict"] == "pass", "nothing was left to break"


def test_an_attack_without_a_bound_must_leave_nothing() -> None:
    everything = list(range(100, 120))
    assert search.unbounded(probe(everything), 10)["verdict"] == "pass"
    assert search.unbounded(probe(everything[:18]), 10)["verdict"] == "pass"
    assert search.unbounded(probe(everything[:17]), 10)["verdict"] == "fail"
    assert search.unbounded(probe([]), 1)["verdict"] == "skipped", "a constant answer is robust, and no use"
    assert search.unbounded(probe([], n=7), 10)["verdict"] == "skipped"


def test_robust_accuracy_that_rises_with_the_radius_is_flagged() -> None:
    table = samples(list(range(110, 140)))  # 100 to 109 were broken
    assert search.wider(probe(list(range(100, 115))), table)["verdict"] == "pass"
    assert search.wider(probe(list(range(102, 115))), table)["verdict"] == "fail"


@pytest.mark.parametrize(
    ("found", "by_stage", "gradients", "verdict"),
    [
        (16, {"apgd-ce": 16, "square": 0}, True, "pass"),
        (15, {"pgd": 15}, True, "warn"),
        (13, {"pgd": 13}, True, "fail"),
        (16, {"apgd-ce": 2, "square": 14}, True, "fail"),
        (16, {"square": 16}, False, "pass"),
        (3, {"square": 3}, False, "fail"),
        (0, {}, True, "skipped"),
    ],
)
def test_planted_adversarials_must_be_found_and_by_gradients_where_those_are_used(
    found: int, by_stage: dict[str, int], gradients: bool, verdict: str
) -> None:
    seen = {"images": 16 if by_stage else 0, "found": found, "by_stage": by_stage}
    assert search.planted(seen, {"gradients": gradients})["verdict"] == verdict


def test_a_merge_says_what_only_attacks_without_gradients_broke() -> None:
    broken = np.zeros((2, 1000), dtype=bool)
    broken[0, :300] = True
    broken[1, 200:302] = True
    assert transfer.merged(["apgd", "square"], [True, False], broken)[0]["verdict"] == "pass"
    broken[1, 200:305] = True
    (found,) = transfer.merged(["apgd", "square"], [True, False], broken)
    assert (found["id"], found["verdict"]) == ("black_box", "warn")
    assert "square: 5 images" in found["summary"]
    broken[1, 200:400] = True
    assert transfer.merged(["apgd", "square"], [True, False], broken)[0]["verdict"] == "fail"
    assert transfer.merged(["apgd", "pgd"], [True, True], broken) == []
