"""Which attacks, with which options, the contract is tried on: every registered one, by what it declares."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from robusteval import registry
from robusteval.attacks.base import Attack
from robusteval.threat import ThreatModel

# At least one set of options for every registered attack; a test fails where one lacks.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "none": [{}],
    "noise": [{"queries": 3}, {"queries": 1}],
    "fgsm": [{"loss": "ce"}, {"loss": "margin"}, {"loss": "dlr"}],
    "pgd": [
        {"steps": 5},
        {"steps": 4, "init": "zero", "loss": "margin"},
        {"steps": 3, "n_restarts": 3, "loss": "dlr"},
        {"steps": 3, "n_targets": 3, "loss": "targeted_ce"},
        {"steps": 3, "n_targets": 2, "n_restarts": 2, "loss": "targeted_dlr", "step_size": 0.05},
    ],
    "cw": [
        {"steps": 6, "searches": 4, "constant": 1.0, "learning_rate": 0.1, "n_targets": 1},
        {"steps": 20, "searches": 2, "constant": 1.0, "targeted": False},
    ],
    "fmn": [{"steps": 12, "n_targets": 1}, {"steps": 9, "n_targets": 2}, {"steps": 8, "targeted": False, "gamma": 0.2}],
    "mifgsm": [{"steps": 4}, {"steps": 3, "decay": 0.0, "step_size": 0.05}],
    "square": [{"queries": 6}, {"queries": 20}, {"queries": 12, "p_init": 0.3, "resc_schedule": True}],
    "apgd": [
        {"steps": 6},
        {"steps": 4, "loss": "dlr", "n_restarts": 2, "eot": 2},
        {"steps": 4, "loss": "targeted_dlr", "n_targets": 2, "large_eps": False},  # the third, so in L1
        {"steps": 3, "loss": "targeted_ce", "n_targets": 2},
    ],
    "autoattack": [
        {"steps": 2, "queries": 2},  # its stages have cases of their own
        {"steps": 2, "queries": 2, "version": "rand"},
    ],
    "fab": [
        {"steps": 4, "n_targets": 2},
        {"steps": 3, "n_targets": 1, "n_restarts": 2},
        {"steps": 3, "targeted": False},
    ],
    "solarize": [
        {"iterations": 3},
        {"mode": "fixed", "threshold": 0.4, "direction": "below"},
        {"mode": "universal"},  # every column of a table, as exhaustive ones do: posterize and translate
    ],
    **{name: [{"iterations": 3}] for name in ("brightness", "contrast", "gamma", "hue", "invert", "jpeg", "rotate")},
    **{name: [{"iterations": 3}] for name in ("low_pass", "high_pass")},
    "posterize": [{"mode": "exhaustive"}],
    "translate": [{"mode": "exhaustive"}, {"iterations": 3}],
}
# Options with which an attack that claims the optimum is held to it, by norm.
AT_OPTIMUM: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("fgsm", "linf"): [{"loss": "ce"}, {"loss": "margin"}, {"loss": "dlr"}],
    ("fgsm", "l2"): [{"loss": "ce"}, {"loss": "margin"}, {"loss": "dlr"}],
    ("cw", "l2"): [{"steps": 100, "searches": 6, "constant": 0.1, "learning_rate": 0.003, "n_targets": 1}],
    ("fmn", "linf"): [{"steps": 60, "n_targets": 1}],
    ("fmn", "l2"): [{"steps": 60, "n_targets": 1}, {"steps": 60, "targeted": False, "step_size": 0.3, "gamma": 0.2}],
    ("mifgsm", "linf"): [{}, {"steps": 3, "decay": 0.0}],
    ("mifgsm", "l2"): [{}, {"steps": 3, "decay": 0.0}],
    ("pgd", "linf"): [
        {},
        {"init": "zero", "loss": "margin"},
        {"loss": "dlr", "n_restarts": 2},
        {"loss": "targeted_ce", "n_targets": 1},
        {"loss": "targeted_dlr", "n_targets": 2},
    ],
    ("pgd", "l2"): [
        {},
        {"init": "zero"},
        {"init": "zero", "loss": "margin"},
        {"step_size": 0.1},
        {"loss": "dlr", "step_size": 0.1},
        {"loss": "targeted_ce", "n_targets": 1, "init": "zero"},
        {"loss": "targeted_dlr", "n_targets": 2, "step_size": 0.1},
    ],
    ("apgd", "linf"): [
        {},
        {"loss": "dlr"},
        {"loss": "targeted_ce", "n_targets": 1},
        {"loss": "targeted_dlr", "n_targets": 2},
    ],
    ("apgd", "l2"): [
        {},
        {"loss": "dlr"},
        {"loss": "targeted_ce", "n_targets": 1},
        {"loss": "targeted_dlr", "n_targets": 2},
    ],
    ("autoattack", "linf"): [{"steps": 25, "queries": 1}],
    ("autoattack", "l2"): [{"steps": 25, "queries": 1}],
    ("fab", "linf"): [{"steps": 20}, {"steps": 20, "n_restarts": 2, "n_targets": 1}, {"steps": 20, "targeted": False}],
    ("fab", "l2"): [{"steps": 20}, {"steps": 20, "n_restarts": 2, "n_targets": 1}, {"steps": 20, "targeted": False}],
}
EPS = {"linf": 0.1, "l2": 0.5, "l1": 2.0, "unbounded": None}


@dataclass(frozen=True, kw_only=True)
class Case:
    """An attack with options, in a norm it searches."""

    attack: Attack
    norm: str
    leads: bool = False
    """Whether these are the attack's first options, in its first norm: what belongs to the engine is tried on these."""

    @property
    def threat(self) -> ThreatModel:
        return ThreatModel(norm=self.norm, eps=EPS[self.norm])  # pyright: ignore[reportArgumentType]

    def within(self, eps: float | None) -> ThreatModel:
        return ThreatModel(norm=self.norm, eps=eps)  # pyright: ignore[reportArgumentType]

    def with_options(self, **options: Any) -> "Case":
        return dataclasses.replace(self, attack=dataclasses.replace(self.attack, **options))

    @property
    def random(self) -> bool:
        """Whether the seed may matter."""
        start = getattr(self.attack, "init", None) or getattr(self.attack, "mode", None)
        restarted = self.attack.method == "fab" and self.attack.restarts() > 1  # its first restart starts at the image
        return self.attack.method in ("noise", "square", "apgd", "autoattack") or restarted or start == "random"


def made(name: str, options: dict[str, Any]) -> Attack:
    return registry.lookup(registry.ATTACKS, "attack.method", name)(**options)


def label(name: str, norm: str, options: dict[str, Any]) -> str:
    return "-".join([name, norm, *(f"{key}={value}" for key, value in options.items())])


def cases(*, every_norm: bool) -> list[Any]:
    """Return the cases; without ``every_norm`` only the first options of an attack in all of its norms."""
    found = []
    for name, sets in OPTIONS.items():
        for number, options in enumerate(sets):
            attack = made(name, options)
            if attack.unfit((1, 8, 8)) is not None:
                continue  # hue, which grey images do not have: its own tests are in colour
            norms = [norm for norm in EPS if norm in attack.norms]
            own = "unbounded" if attack.own_set else norms[number % len(norms)]
            # A cascade's stages have cases of their own; of the attacks by one number solarization stands for all.
            stood_for = len(attack.stages(norms[0])) > 1 or (attack.parametric and name != "solarize")
            everywhere = number == 0 and not stood_for
            for place, norm in enumerate(norms if every_norm or everywhere else [own]):
                case = Case(attack=attack, norm=norm, leads=number == place == 0)
                found.append(pytest.param(case, id=label(name, norm, options)))
    return found


def optimum_cases() -> list[Any]:
    return [
        pytest.param(Case(attack=made(name, options), norm=norm, leads=number == 0), id=label(name, norm, options))
        for (name, norm), sets in AT_OPTIMUM.items()
        for number, options in enumerate(sets)
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, values in {
        "case": lambda: cases(every_norm=False),
        "case_in_norm": lambda: cases(every_norm=True),
        "optimum_case": optimum_cases,
    }.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, values())


@pytest.fixture
def tried() -> dict[str, list[dict[str, Any]]]:
    """The options that the contract tries, by attack."""
    return OPTIONS


@pytest.fixture
def held_to_optimum() -> set[tuple[str, str]]:
    """The (attack, norm) pairs that are held to the optimum."""
    return set(AT_OPTIMUM)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Small networks are fastest on one thread; also keeps several test processes from fighting over cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
