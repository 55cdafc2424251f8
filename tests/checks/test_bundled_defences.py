"""Defences that stay broken after eval(), around a bundled network: each is flagged, by the check meant for it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robusteval.cli import run

DEFENCES = Path(__file__).with_name("defences.py")

# Defence, the check for it, and others that speak of the same thing.
FLAGGED = {
    "SoftmaxOutput": ("logits", {"gradient"}),
    "ScaledLogits": ("saturated", {"unbounded", "noise", "single_step"}),
    "QuantisedInput": ("quantised", {"gradient_zero", "unbounded", "noise"}),
    "Jpeg": ("quantised", {"gradient_zero", "unbounded", "noise"}),
    "ZeroGradientLayer": ("gradient_zero", {"unbounded", "noise"}),
    "RandomNoise": ("deterministic", set()),
    "ForcedDropout": ("eval_mode", {"deterministic"}),
    "ForcedBatchStatistics": ("batch", set()),
    "KWinners": ("gradient", {"single_step", "noise", "unbounded"}),
    "MultiResolution": ("gradient", {"single_step", "noise", "unbounded"}),
    "Adaptive": ("autograd", set()),
    "OtherOrder": ("class_order", set()),
}

Evaluate = Callable[..., tuple[int, dict[str, Any] | None]]


@pytest.fixture
def evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """Return a function that evaluates a network and returns (exit code, results or None)."""

    def evaluate(*overrides: str) -> tuple[int, dict[str, Any] | None]:
        small = ["dataset=mnist_5k", "dataset.n=100", "attack=pgd", "attack.steps=10", "threat.eps=0.1"]
        code = run([*small, "logger=none", f"runs.dir={tmp_path}", *overrides])
        if code:
            return code, None
        folder = Path(capsys.readouterr().out.strip().splitlines()[-1])
        return code, json.loads((folder / "results.json").read_text())

    return evaluate


def of(defence: str) -> list[str]:
    return ["model=python", f"model.entry={DEFENCES}:{defence}", f"model.name={defence}", "model.input_size=[1,28,28]"]


def by_verdict(results: dict[str, Any], verdict: str) -> set[str]:
    return {check["id"] for check in results["checks"] if check["verdict"] == verdict}


@pytest.mark.parametrize("model", ["mnist_cnn", "mnist_cnn_at"])
def test_the_bundled_networks_pass_every_check(model: str, evaluated: Evaluate) -> None:
    _, results = evaluated(f"model={model}", "attack.steps=40")
    assert results is not None
    assert {check["verdict"] for check in results["checks"]} == {"pass"}
    before = {"range", "normalisation", "reference", "class_order", "eps", "subset", "eval_mode", "autograd"}
    after = {"quantised", "saturated", "noise", "single_step", "rising", "unbounded"}
    assert {check["id"] for check in results["checks"]} >= before | after


@pytest.mark.parametrize("defence", FLAGGED)
def test_a_toy_defence_is_flagged_by_the_check_for_it(defence: str, evaluated: Evaluate) -> None:
    flag, others = FLAGGED[defence]
    _, results = evaluated(*of(defence))
    assert results is not None
    failed = by_verdict(results, "fail")
    assert flag in failed
    assert failed <= {flag, *others}
    for check in results["checks"]:
        assert bool(check["advice"]) or check["verdict"] in ("pass", "skipped")


def test_a_detached_graph_is_refused_by_an_attack_on_gradients_and_says_so(
    evaluated: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(*of("DetachedGraph"))[0] == 2
    assert "do not depend differentiably on the image" in capsys.readouterr().err


def test_off_looks_at_nothing_and_says_so(evaluated: Evaluate) -> None:
    _, results = evaluated(*of("SoftmaxOutput"), "checks=off")
    assert results is not None
    assert [(check["id"], check["verdict"]) for check in results["checks"]] == [("checks", "skipped")]


def test_the_level_changes_no_sample_and_more_is_refused_once_the_run_is_there(
    evaluated: Evaluate, capsys: pytest.CaptureFixture[str]
) -> None:
    _, off = evaluated("model=mnist_cnn", "checks=off", "dataset.n=32")
    assert evaluated("model=mnist_cnn", "dataset.n=32")[0] == 2
    assert "runs.fresh=true" in capsys.readouterr().err
    _, standard = evaluated("model=mnist_cnn", "dataset.n=32", "runs.fresh=true")
    assert off is not None
    assert standard is not None
    assert off["evidence"] == standard["evidence"]
    assert evaluated("model=mnist_cnn", "dataset.n=32", "checks=off")[0] == 0, "less than there is serves"
