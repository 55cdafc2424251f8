"""Who claims what, literally: an attack that drops a capability escapes its tests, and must change this list first."""

from typing import Any

import pytest

from robusteval import registry

ALL = {"linf", "l2", "l1", "unbounded"}

CLAIMS = {
    # name: (norms, optimum, invariant, own_set, parametric)
    "none": (ALL, False, True, True, False),
    "noise": (ALL, False, True, False, False),
    "fgsm": ({"linf", "l2"}, True, True, False, False),
    "pgd": ({"linf", "l2"}, True, True, False, False),
    "cw": ({"l2"}, True, True, False, False),
    "fmn": ({"linf", "l2", "l1"}, True, True, False, False),
    "mifgsm": ({"linf", "l2"}, True, True, False, False),
    "square": ({"linf", "l2", "l1"}, False, True, False, False),
    "autoattack": ({"linf", "l2", "l1"}, True, True, False, False),
    "apgd": ({"linf", "l2", "l1"}, True, True, False, False),
    "fab": ({"linf", "l2", "l1"}, True, True, False, False),
    "solarize": (ALL, False, True, True, True),
    "brightness": (ALL, False, True, True, True),
    "contrast": (ALL, False, True, True, True),
    "gamma": (ALL, False, True, True, True),
    "high_pass": (ALL, False, True, True, True),
    "hue": (ALL, False, True, True, True),
    "invert": (ALL, False, True, True, True),
    "jpeg": (ALL, False, True, True, True),
    "low_pass": (ALL, False, True, True, True),
    "posterize": (ALL, False, True, True, True),
    "rotate": (ALL, False, True, True, True),
    "translate": (ALL, False, True, True, True),
    "transfer": (ALL, False, True, False, False),
    "reference/autoattack": ({"linf", "l2", "l1"}, False, False, False, False),
    "reference/foolbox": ({"linf", "l2", "l1"}, False, False, False, False),
    "reference/torchattacks": ({"linf", "l2", "l1"}, False, False, False, False),
}


def test_every_registered_attack_is_listed() -> None:
    assert set(CLAIMS) == set(registry.ATTACKS)


@pytest.mark.parametrize("name", CLAIMS)
def test_an_attack_claims_what_is_listed(name: str) -> None:
    kind = registry.lookup(registry.ATTACKS, "attack.method", name)
    claims = (set(kind.norms), kind.optimum, kind.invariant, kind.own_set, kind.parametric)
    assert claims == CLAIMS[name]


def test_these_and_no_others_keep_the_nearest_adversarial() -> None:
    kinds = [registry.lookup(registry.ATTACKS, "attack.method", name) for name in registry.ATTACKS]
    assert {kind.method for kind in kinds if kind.keeps == "nearest"} == {"cw", "fmn"}


def test_an_attack_is_registered_under_its_own_name() -> None:
    for name in registry.ATTACKS:
        assert registry.lookup(registry.ATTACKS, "attack.method", name).method == name


def test_the_contract_is_tried_on_every_registered_attack(tried: dict[str, list[dict[str, Any]]]) -> None:
    """But those of other libraries, which promise less, and saved points: tests/attacks/test_{whole_batch,transfer}."""
    own = {name for name in registry.ATTACKS if not name.startswith("reference/")}
    assert set(tried) == own - {"transfer"}
    assert all(tried.values())


def test_every_claim_of_an_optimum_is_held_to_it(held_to_optimum: set[tuple[str, str]]) -> None:
    claimed = {
        (name, norm) for name, (norms, optimum, *_) in CLAIMS.items() for norm in norms & {"linf", "l2"} if optimum
    }
    assert held_to_optimum == claimed
