"""The adapters' own logic, on modules in place of the libraries: what those are told, what is refused."""

import base64
import hashlib
import logging
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from robusteval.attacks.base import Attack, WholeBatch
from robusteval.attacks.reference import library
from robusteval.attacks.reference.autoattack import ReferenceAutoAttack
from robusteval.attacks.reference.foolbox import Foolbox
from robusteval.attacks.reference.torchattacks import Torchattacks

NAMES = ("autoattack", "pyautoattack", "torchattacks", "foolbox")

PARTS = """
    import logging
    CALLS = []

    class Part:
        def __init__(self, whole, **settings):
            self.__dict__.update(whole=whole, **settings)

        def perturb(self, x, y):
            print("noise on standard output")
            logging.getLogger("auto-attack").warning("noise of a logger")
            CALLS.append({"n": len(x), **self.whole.given, **{k: v for k, v in vars(self).items() if k != "whole"}})
            return x + 0.5

    class Whole:
        def setup(self, **given):
            self.given = given
            five = 5 if given["version"] == "custom" else 1
            self.apgd = Part(self, kind="apgd", n_restarts=five, loss="ce")
            self.apgd_targeted = Part(self, kind="apgd-t")
            self.fab = Part(self, kind="fab", n_restarts=5, targeted=False)
            self.square = Part(self, kind="square", n_queries=5000)
"""
FORK = """
    class AutoAttack(Whole):
        def __init__(self, model, *, attacks=None, device="cpu", eps=0.3, norm="Linf", seed=None, version="standard"):
            self.setup(by="fork", attacks=attacks, eps=eps, norm=norm, version=version)
"""
ORIGINAL = """
    class AutoAttack(Whole):
        def __init__(self, model, norm="Linf", eps=0.3, seed=None, verbose=True, attacks_to_run=[],
                     version="standard", device="cuda", log_path=None):
            assert not verbose and device == "cpu"
            self.setup(by="original", attacks=attacks_to_run, eps=eps, norm=norm, version=version)
"""
TORCHATTACKS = """
    import types
    CALLS = []

    class Attack:
        def __call__(self, x, y):
            CALLS.append({"n": len(x), **vars(self)})
            return x

    attack = types.SimpleNamespace(Attack=Attack)

    class PGD(Attack):
        '''Distance Measure : Linf'''
        def __init__(self, model, eps=8/255, alpha=2/255, steps=10, random_start=True):
            self.__dict__.update(eps=eps, alpha=alpha, steps=steps)

    class Square(Attack):
        '''Distance Measure : Linf, L2'''
        def __init__(self, model, norm="Linf", eps=8/255, n_queries=5000, seed=0):
            self.__dict__.update(norm=norm, eps=eps, seed=seed)

    class CW(Attack):
        '''Distance Measure : L2'''
        def __init__(self, model, c=1, steps=50):
            pass

    class PIFGSM(Attack):
        def __init__(self, model, sizes, max_epsilon=16/255):
            self.__dict__.update(eps=max_epsilon, sizes=sizes)

    class LGV(Attack):
        def __init__(self, model, trainloader):
            pass
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, str]], None]]:
    """Write modules that the adapters find instead of the libraries."""
    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "site")

    def write(sources: dict[str, str]) -> None:
        for name, source in sources.items():
            path = tmp_path / "site" / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(textwrap.dedent(source))
        for name in [name for name in sys.modules if name.partition(".")[0] in NAMES]:
            monkeypatch.delitem(sys.modules, name)

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] in NAMES]:
        del sys.modules[name]


def run(attack: Attack, norm: str = "linf", n: int = 3, seed: int = 7) -> torch.Tensor:
    (stage,) = [part for _, part in attack.stages(norm)]
    assert isinstance(stage, WholeBatch)
    return stage.run(nn.Identity(), torch.zeros(n, 1, 2, 2), torch.zeros(n).long(), norm=norm, eps=0.25, seed=seed)


def custom(part: str, **options: Any) -> ReferenceAutoAttack:
    return ReferenceAutoAttack(version="custom", attacks=(part,), **options)  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------- AutoAttack


def test_the_versions_are_cascades_of_the_authors_parts() -> None:
    names = {
        "standard": ["apgd-ce", "apgd-t", "fab-t", "square"],
        "plus": ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"],
        "rand": ["apgd-ce", "apgd-dlr"],
    }
    for version, parts in names.items():
        assert [name for name, _ in ReferenceAutoAttack(version=version).stages("linf")] == parts  # pyright: ignore
    assert [name for name, _ in custom("square").stages("l2")] == ["square"]


@pytest.mark.parametrize(("module", "source"), [("pyautoattack", PARTS + FORK), ("autoattack", PARTS + ORIGINAL)])
def test_each_part_is_run_as_the_ensemble_would(
    stub: Callable[[dict[str, str]], None], module: str, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stub({f"{module}.py": source})
    logger, before = logging.getLogger("auto-attack"), logging.getLogger("auto-attack").level
    for part in ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"):
        assert torch.equal(run(custom(part, steps=9, queries=33)), torch.full((3, 1, 2, 2), 0.5))
    for _, stage in ReferenceAutoAttack().stages("linf"):
        run(stage, norm="l2")
    assert capsys.readouterr() == ("", "")
    assert logger.level == before
    calls = sys.modules[module].CALLS
    who = {"pyautoattack": "fork", "autoattack": "original"}[module]
    assert {call["by"] for call in calls} == {who}
    assert [call["attacks"] for call in calls[:2]] == [["apgd-ce"], ["apgd-dlr"]]
    ce, dlr, targeted, fab, fab_t, square = calls[:6]
    assert (ce["loss"], dlr["loss"], targeted["kind"]) == ("ce", "dlr", "apgd-t")
    assert all((call["n_iter"], call["n_iter_orig"]) == (9, 9) for call in (ce, dlr, targeted))
    assert (ce["n_restarts"], ce["norm"], ce["eps"], ce["seed"]) == (5, "Linf", 0.25, 7)
    assert (fab["targeted"], fab["n_restarts"], fab["n_iter"]) == (False, 5, 9)
    assert (fab_t["targeted"], fab_t["n_restarts"], fab_t["n_iter"]) == (True, 1, 9)
    assert square["n_queries"] == 33
    standard = calls[6:]
    assert not any(call["attacks"] for call in standard)
    assert [(call["version"], call["norm"]) for call in standard] == [("standard", "L2")] * 4
    assert (standard[0]["n_iter"], standard[3]["n_queries"]) == (100, 5000)


def test_the_authors_module_goes_before_its_fork(stub: Callable[[dict[str, str]], None]) -> None:
    stub({"autoattack.py": PARTS + ORIGINAL, "pyautoattack.py": PARTS + FORK})
    run(custom("square"))
    assert [call["by"] for call in sys.modules["autoattack"].CALLS] == ["original"]
    assert "pyautoattack" not in sys.modules
    assert ReferenceAutoAttack().library() == "autoattack of unknown version"


def test_batches_are_no_larger_than_asked(stub: Callable[[dict[str, str]], None]) -> None:
    stub({"pyautoattack.py": PARTS + FORK, "torchattacks.py": TORCHATTACKS})
    assert len(run(custom("square", batch_size=4), n=10)) == 10
    assert [call["n"] for call in sys.modules["pyautoattack"].CALLS] == [4, 4, 2]
    assert len(run(Torchattacks(batch_size=4), n=10)) == 10
    assert [call["n"] for call in sys.modules["torchattacks"].CALLS] == [4, 4, 2]


def test_options_of_autoattack_that_contradict() -> None:
    wrongs: list[dict[str, Any]] = [{"version": "custom"}, {"attacks": ("square",)}]
    for wrong in (*wrongs, {"version": "custom", "attacks": ("fab", "fab")}):
        with pytest.raises(ValueError, match="attacks"):
            ReferenceAutoAttack(**wrong)


def test_targets_need_classes() -> None:
    assert ReferenceAutoAttack().min_classes() == 10
    assert ReferenceAutoAttack(version="rand").min_classes() == 3
    assert custom("square").min_classes() == custom("apgd-ce").min_classes() == 2


# ---------------------------------------------------------------- torchattacks


def test_torchattacks_gets_radius_norm_and_seed_from_the_evaluation(stub: Callable[[dict[str, str]], None]) -> None:
    stub({"torchattacks.py": TORCHATTACKS})
    run(Torchattacks(options={"alpha": "2/255", "steps": 20}))
    run(Torchattacks(name="Square"), norm="l2", seed=3)
    run(Torchattacks(name="PIFGSM", options={"sizes": [2, 3]}))
    assert [{k: v for k, v in call.items() if k != "n"} for call in sys.modules["torchattacks"].CALLS] == [
        {"eps": 0.25, "alpha": 2 / 255, "steps": 20},
        {"norm": "L2", "eps": 0.25, "seed": 3},
        {"eps": 0.25, "sizes": (2, 3)},
    ]
    assert Torchattacks(name="PIFGSM").bounded()
    assert not Torchattacks(name="CW").bounded()


@pytest.mark.parametrize(
    ("options", "norm", "said"),
    [
        ({"name": "PDG"}, "linf", r"attack.name=PDG is not known; did you mean 'PGD'\? \(known: CW, PGD, PIFGSM"),
        ({"name": "LGV"}, "linf", "attack.name=LGV is not known"),
        (
            {"options": {"stps": 3}},
            "linf",
            r"attack.options of PGD: stps is not known; did you mean 'steps'\? \(kn.*alp",
        ),
        ({"options": {"eps": 0.1}}, "linf", r"attack.options.eps: eps comes from threat.eps; leave it out"),
        ({"name": "Square", "options": {"seed": 1}}, "l2", "seed comes from the evaluation's seed"),
        ({}, "l2", r"attack.name=PGD searches in linf, not in threat.norm=l2"),
        ({"name": "PIFGSM"}, "l1", r"PIFGSM needs attack.options.sizes"),
    ],
)
def test_what_torchattacks_does_not_have(
    stub: Callable[[dict[str, str]], None], options: Any, norm: str, said: str
) -> None:
    stub({"torchattacks.py": TORCHATTACKS})
    sentence = Torchattacks(**options).refusal(norm)
    assert sentence is not None
    assert re.search(said, sentence), sentence


def test_what_torchattacks_has_is_not_refused(stub: Callable[[dict[str, str]], None]) -> None:
    stub({"torchattacks.py": TORCHATTACKS})
    right: list[tuple[dict[str, Any], str]] = [({}, "linf"), ({"name": "Square"}, "l2")]
    for options, norm in (*right, ({"name": "CW", "options": {"c": 2}}, "l2")):
        assert Torchattacks(**options).refusal(norm) is None


# ---------------------------------------------------------------- Foolbox

FOOLBOX = """
    class PyTorchModel:
        def __init__(self, network, bounds, device):
            assert bounds == (0, 1)
"""
FOOLBOX_BASE = """
    CALLS = []

    class AttackWithDistance:
        def __call__(self, model, x, y, *, epsilons):
            CALLS.append({"n": len(x), "eps": epsilons, **{k: v for k, v in vars(self).items() if k != "distance"}})
            return x + 9, x + epsilons, None
"""
FOOLBOX_ATTACKS = """
    from foolbox.attacks.base import AttackWithDistance
    from foolbox import distances

    class LinfPGD(AttackWithDistance):
        distance = distances.linf
        def __init__(self, *, steps=40, rel_stepsize=0.1):
            assert steps > 0, "steps are positive"
            self.steps, self.rel_stepsize = steps, rel_stepsize

    class Contrast(AttackWithDistance):
        def __init__(self, *, distance=None):
            self.distance = distance

    class SpatialAttack:
        pass
"""


@pytest.fixture
def foolbox(stub: Callable[[dict[str, str]], None]) -> None:
    stub(
        {
            "foolbox/__init__.py": FOOLBOX,
            "foolbox/distances.py": "linf, l2, l1 = 'linf distance', 'l2 distance', 'l1 distance'",
            "foolbox/attacks/__init__.py": FOOLBOX_ATTACKS,
            "foolbox/attacks/base.py": FOOLBOX_BASE,
        }
    )


@pytest.mark.usefixtures("foolbox")
def test_foolbox_gets_radius_and_norm_and_its_projected_points_count() -> None:
    found = run(Foolbox(options={"steps": 7, "rel_stepsize": "1/4"}, batch_size=2))
    assert torch.equal(found, torch.full((3, 1, 2, 2), 0.25))
    run(Foolbox(name="Contrast"), norm="l2")
    assert sys.modules["foolbox.attacks.base"].CALLS == [
        {"n": 2, "eps": 0.25, "steps": 7, "rel_stepsize": 0.25},
        {"n": 1, "eps": 0.25, "steps": 7, "rel_stepsize": 0.25},
        {"n": 3, "eps": 0.25},
    ]


@pytest.mark.usefixtures("foolbox")
def test_what_foolbox_does_not_have() -> None:
    def refused(norm: str = "linf", **options: Any) -> str:
        return Foolbox(**options).refusal(norm) or ""

    assert refused() == refused("l1", name="Contrast") == refused("l2", name="Contrast") == ""
    assert "attack.name=LinfPDG is not known; did you mean 'LinfPGD'?" in refused(name="LinfPDG")
    assert "(known: Contrast, LinfPGD)" in refused(name="SpatialAttack")
    assert "searches in another norm (linf distance) than threat.norm=l2" in refused("l2")
    assert "stps is not known; did you mean 'steps'?" in refused(options={"stps": 1})
    assert "distance comes from threat.norm" in refused(name="Contrast", options={"distance": "l2"})
    assert "LinfPGD does not take them (steps are positive)" in refused(options={"steps": 0})


# ---------------------------------------------------------------- what is not installed, and what clashes


@pytest.mark.parametrize(
    ("attack", "extra"), [(ReferenceAutoAttack, "autoattack"), (Torchattacks, "torchattacks"), (Foolbox, "foolbox")]
)
def test_a_missing_library_is_answered_with_its_extra(
    attack: type[Attack], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "installed", lambda module: False)
    sentence = attack().refusal("linf") or ""
    assert sentence.startswith(f"attack={attack.method} needs the package ")
    assert sentence.endswith(f"which is not installed: pip install 'robusteval[{extra}]'")
    assert attack().library() is None


@pytest.mark.parametrize("kind", [ReferenceAutoAttack, Torchattacks, Foolbox])
def test_a_library_that_fails_to_import_is_told(kind: type[Attack], stub: Callable[[dict[str, str]], None]) -> None:
    stub({f"{name}.py": "import no_such_module" for name in NAMES})
    sentence = kind().refusal("linf") or ""
    assert "fails to import (ModuleNotFoundError: No module named 'no_such_module'); " in sentence
    assert "pip install --force-reinstall 'robusteval[" in sentence


def distribution(site: Path, name: str, version: str, content: str, recorded: str) -> None:
    """Write an installed package of one file, whose record is of ``recorded``."""
    (site / name).mkdir(exist_ok=True)
    (site / name / "__init__.py").write_text(content)
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(recorded.encode()).digest()).decode().rstrip("=")
    (info / "RECORD").write_text(f"{name}/__init__.py,sha256={digest},{len(recorded)}\n")


def test_the_clash_is_told_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "clash"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    distribution(site, "robustbench", "1.1.1", "old = True", recorded="new = True")
    distribution(site, "torchattacks", "3.5.1", "a = 1", recorded="a = 1")
    distribution(site, "requests", "2.25.1", "a = 1", recorded="a = 1")
    assert library.overwritten("robustbench")
    assert not library.overwritten("torchattacks")
    (note,) = Torchattacks().notes()
    assert "overwrote robustbench (mend it: pip install --force-reinstall --no-deps robustbench)" in note
    assert "holds requests at 2.25" in note
    assert "\n" not in note
    (site / "robustbench" / "__init__.py").write_text("new = True")
    assert not library.overwritten("robustbench")
    (note,) = Torchattacks().notes()
    assert "robustbench" not in note
    (site / "requests-2.25.1.dist-info" / "METADATA").write_text("Name: requests\nVersion: 2.32.0\n")
    assert Torchattacks().notes() == ()
    (site / "robustbench" / "__init__.py").unlink()
    assert library.overwritten("robustbench")
