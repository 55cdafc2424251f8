"""Attacks of other libraries by the command line: what is listed, refused, run and written."""

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from robusteval.attacks.reference import library

STUB = """
    import torch

    class Part:
        def __init__(self, model, eps, far):
            self.model, self.eps, self.far = model, eps, far

        def perturb(self, x, y):
            self.model(x)
            step = self.eps * torch.ones_like(x)
            step[:, :, ::2] *= -1
            return (x + (3 if self.far else 1.000001) * step).clamp(0, 1)

    class AutoAttack:
        def __init__(self, model, *, attacks=None, device="cpu", eps=0.3, norm="Linf", seed=None, version="standard"):
            self.apgd, self.apgd_targeted = Part(model, eps, far=False), Part(model, eps, far=False)
            self.fab, self.square = Part(model, eps, far=False), Part(model, eps, far=True)
"""
SMALL = ("dataset=mnist_5k", "dataset.n=16", "logger=none", "runtime.device=cpu")


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module pyautoattack of a few lines, and no autoattack."""
    (tmp_path / "site").mkdir()
    path = tmp_path / "site" / "pyautoattack.py"
    path.write_text(textwrap.dedent(STUB))
    monkeypatch.syspath_prepend(path.parent)
    for name in ("autoattack", "pyautoattack"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield path
    sys.modules.pop("pyautoattack", None)


def results_of(answer: Any) -> dict[str, Any]:
    return json.loads((Path(answer.out.strip().splitlines()[-1]) / "results.json").read_text())


@pytest.mark.parametrize(
    ("name", "extra"), [("autoattack", "autoattack"), ("torchattacks", "torchattacks"), ("foolbox", "foolbox")]
)
def test_a_missing_library_is_told_before_anything_is_loaded(
    answer: Callable[..., Any], name: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "installed", lambda module: False)
    monkeypatch.setattr("robusteval.models.bundled.Bundled.load", lambda self: pytest.fail("weights were loaded"))
    given = answer(f"attack=reference/{name}", *SMALL)
    assert given.code == 2
    assert f"pip install 'robusteval[{extra}]'" in given.err
    assert given.err.count("\n") == 1


def test_they_are_listed_and_misspelt_names_answered(answer: Callable[..., Any]) -> None:
    listed = answer("list", "attacks").out
    for name in ("autoattack", "foolbox", "torchattacks"):
        assert f"reference/{name} " in listed
    for wrong, meant in (("torchattacks", "reference/torchattacks"), ("foolbox", "reference/foolbox")):
        given = answer(f"attack={wrong}")
        assert (given.code, given.err.count("\n")) == (2, 1)
        assert f"did you mean '{meant}'?" in given.err
    assert "did you mean 'reference/autoattack'?" in answer("attack=refrence/autoattack").err


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("attack.version=custom",), "version=custom needs attacks"),
        (("attack.attacks=[square]",), "no other version takes them"),
        (("attack.version=custom", "attack.attacks=[sqare]"), "attack.attacks"),
        (("attack.version=custom", "attack.attacks=[]"), "attack.attacks"),
        (("attack.version=custom", "attack.attacks=[square,square]"), "name each attack once"),
        (("attack.batch_size=0",), "attack.batch_size=0"),
        (("engine.mode=fast",), "engine.mode=fast: attack=reference/autoattack runs as its library does"),
        (("threat=unbounded",), "does not search threat.norm=unbounded"),
    ],
)
def test_options_that_cannot_be_meant(answer: Callable[..., Any], options: tuple[str, ...], said: str) -> None:
    given = answer("attack=reference/autoattack", *options)
    assert (given.code, given.err.count("\n")) == (2, 1), given.err
    assert said in given.err


@pytest.mark.usefixtures("stub")
def test_a_run_is_a_run_like_any_other(answer: Callable[..., Any]) -> None:
    given = answer("attack=reference/autoattack", *SMALL)
    assert given.code == 0, given.err
    results = results_of(given)
    folder = Path(given.out.strip().splitlines()[-1])
    assert folder.parent.name == "runs"
    assert folder.name.startswith("mnist_cnn_at-mnist_5k-reference_autoattack-")
    assert results["attack"]["name"] == "reference/autoattack"
    assert (results["attack"]["version"], results["attack"]["queries"]) == ("standard", 5000)
    stages = results["robust"]["by_stage"]
    assert [stage["stage"] for stage in stages] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    checks = {check["id"]: check for check in results["checks"]}
    entered = stages[-1]["entered"]
    assert entered > 0
    assert checks["reference_budget"]["verdict"] == "warn"
    assert checks["reference_budget"]["summary"].startswith(f"{entered} points of the other library")
    assert "library" in json.loads((folder / "run.json").read_text())["digests"]
    assert answer("verify", str(folder)).code == 0
    # A sample that stood costs one forward pass of the stub and one of the verifier a stage.
    table = answer("attack=reference/autoattack", *SMALL)
    assert table.code == 0
    close = answer("attack=reference/autoattack", "attack.version=custom", "attack.attacks=[apgd-ce]", *SMALL)
    checks = {check["id"]: check for check in results_of(close)["checks"]}
    assert checks["reference_budget"]["verdict"] == "pass"
    assert results_of(close)["cost"]["forward_passes"] == 16 + 2 * results_of(close)["robust"]["by_stage"][0]["entered"]


def test_a_resumed_run_refuses_another_library(
    answer: Callable[..., Any], stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = answer("attack=reference/autoattack", *SMALL)
    (Path(given.out.strip().splitlines()[-1]) / "results.json").unlink()
    stub.rename(stub.with_name("autoattack.py"))
    monkeypatch.delitem(sys.modules, "pyautoattack")
    sys.path_importer_cache.clear()
    given = answer("attack=reference/autoattack", *SMALL)
    assert given.code == 2
    assert "library changed since this run began" in given.err
