"""Experiments that are sweeps: what one plain command runs, what the user may name himself, and what is told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from robusteval import experiments
from robusteval.compose import composed, sweep
from robusteval.config import build
from robusteval.groups import groups


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of the user's with an experiment: one network and its attack, and two values each of two keys."""
    folder = tmp_path / "mine"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "small.yaml").write_text(
        "# @package _global_\n"
        "# Two seeds of two radii\n"
        "defaults: [override /model: mnist_cnn, override /attack: fgsm]\n"
        "sweep: ['threat.eps=0.1,0.2', 'seed=0,1', dataset.n=16]\n"
    )
    return folder


@pytest.mark.parametrize("name", groups()["experiment"])
def test_every_experiment_can_be_run(name: str) -> None:
    asked = experiments.asked([f"experiment={name}"], None)
    overrides = [f"experiment={name}"] if asked is None else asked.overrides
    combinations = sweep(overrides)
    for combination in (combinations[0], combinations[-1]):
        build(composed(combination))


def test_the_padding_study_is_its_whole_grid() -> None:
    asked = experiments.asked(["experiment=padding_study"], None)
    assert asked is not None
    assert asked.study == "padding"
    assert len(sweep(asked.overrides)) == 4 * 2 * 3 * 2
    fewer = experiments.asked(["seed=1", "experiment=padding_study", "model.mode=nopad", "threat=linf_0.3"], None)
    assert fewer is not None
    given = [build(composed(combination)) for combination in sweep(fewer.overrides)]
    assert len(given) == 2 * 3
    assert {(one.model.mode, one.seed, one.threat.eps) for one in given} == {("nopad", 1, 0.3)}
    assert [one.attack.method for one in given[:3]] == ["apgd", "fab", "square"]


def test_a_plain_command_runs_the_sweep_of_an_experiment(mine: Path, answer: Callable, evaluated: list) -> None:
    assert answer("--config-dir", str(mine), "experiment=small", "logger=none").code == 0
    assert [(one.threat.eps, one.seed, one.attack.method, one.model.name) for one in evaluated] == [
        (eps, seed, "fgsm", "mnist_cnn") for eps in (0.1, 0.2) for seed in (0, 1)
    ]
    evaluated.clear()
    assert answer("--config-dir", str(mine), "experiment=small", "seed=5", "threat.eps=0.3", "logger=none").code == 0
    assert [(one.threat.eps, one.seed, one.dataset.n) for one in evaluated] == [(0.3, 5, 16)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("sweep: seed=0,1\n", "sweep is a list of overrides"),
        ("sweep: [1, 2]\n", "sweep is a list of overrides"),
        ("sweep: [seed]\n", "seed"),
        ("sweep: [sead=0]\n", "sead is not a known key"),
        ("sweep: [seed=0]\nstudy: paddin\n", "study=paddin is not known; did you mean 'padding'"),
        ("sweep: [\n", "cannot be read as YAML"),
        ("swep: [seed=0]\n", "swep is not a known key; did you mean 'sweep'"),
    ],
)
def test_a_wrong_file_is_told(content: str, words: str, mine: Path, answer: Callable, evaluated: list) -> None:
    (mine / "experiment" / "wrong.yaml").write_text("# @package _global_\n" + content)
    given = answer("--config-dir", str(mine), "experiment=wrong", "logger=none")
    assert (given.code, evaluated) == (2, [])
    assert words in given.err
    assert "Traceback" not in given.err


def test_an_experiment_that_is_not_there_is_told(answer: Callable) -> None:
    given = answer("experiment=padding_stud")
    assert given.code == 2
    assert "did you mean 'padding_study'?" in given.err


def test_what_a_study_rests_on_cannot_be_changed(answer: Callable, evaluated: list) -> None:
    for override in ("engine.stop=first", "attack=fgsm"):
        said = answer("experiment=confidence_study", override, "logger=none")
        assert said.code == 2
        assert f"{override}: experiment=confidence_study sets {override.partition('=')[0]} itself" in said.err
    assert not evaluated
    asked = experiments.asked(["experiment=confidence_study", "model=mnist_cnn,mnist_cnn_at"], None)
    assert asked is not None
    given = [build(composed(combination)) for combination in sweep(asked.overrides)]
    assert {(one.model.name, one.attack.method, one.engine.stop) for one in given} == {
        (model, attack, "never") for model in ("mnist_cnn", "mnist_cnn_at") for attack in ("noise", "pgd", "square")
    }
