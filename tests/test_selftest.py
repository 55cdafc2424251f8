"""``robusteval selftest``: all proofs hold, and a weakened or proofless attack is caught."""

import importlib
import sys

import pytest
import torch

from robusteval import registry, selftest
from robusteval.attacks import fgsm, noise, solarize
from robusteval.cli import run


@pytest.mark.slow
def test_all_proofs_hold_and_every_attack_has_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert selftest.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok", "skip reference/")) for line in lines[:-1])
    assert {line.split()[1] for line in lines[:-1]} == set(registry.ATTACKS)


@pytest.fixture(autouse=True)
def no_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other libraries are those that are installed, whatever another test has put in their place."""
    for name in list(sys.modules):
        if name.partition(".")[0] in ("autoattack", "pyautoattack", "torchattacks"):
            monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()


def failed(capsys: pytest.CaptureFixture[str], *attacks: str) -> set[str]:
    assert selftest.main(attacks) == 1
    return {line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")}


def test_an_attack_without_a_proof_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(selftest, "_OTHERS", {"none": (), "noise": ()})
    assert failed(capsys, "none", "noise", "solarize", "square") == {"solarize", "square"}


def test_a_weakened_attack_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    start, turn, steepest = noise.uniform_in_ball, solarize.solarize, fgsm.steepest
    monkeypatch.setattr(noise, "uniform_in_ball", lambda job: job.x + 0.9 * (start(job) - job.x))
    monkeypatch.setattr(solarize, "solarize", lambda x, threshold, direction: turn(x, threshold + 0.004, direction))
    monkeypatch.setattr(fgsm, "steepest", lambda gradient, norm: 0.97 * steepest(gradient, norm))
    assert failed(capsys, "none", "noise", "solarize", "fgsm") == {"noise", "solarize", "fgsm"}


def test_noise_that_leaves_the_ball_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    start = noise.uniform_in_ball

    def outside(job: object) -> torch.Tensor:
        points = start(job)  # pyright: ignore[reportArgumentType]
        points[::50, ..., -1] = 1.1
        return points

    monkeypatch.setattr(noise, "uniform_in_ball", outside)
    assert failed(capsys, "noise", "fgsm") == {"noise"}


def test_a_misspelt_attack_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["selftest", "pgdd"]) == 2
    assert "did you mean 'pgd'" in capsys.readouterr().err
