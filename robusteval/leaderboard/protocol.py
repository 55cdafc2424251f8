"""The protocol behind a published board, and in which ways a run departs from it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import hypergeom, norm

from robusteval.evidence.folder import RunFolder
from robusteval.published import protocol as usual_protocol
from robusteval.published import robustbench
from robusteval.published.robustbench import Entry
from robusteval.report.words import radius

# RobustBench itself ranks 0.031 among 8/255 (0.0314).
_NEARLY = 0.02
# Published accuracies are rounded, and AutoAttack's own seeds move one by about this much: below it nothing disagrees.
_SLACK = 0.001
_Z = float(norm.ppf(0.975))
# The preprocessing that RobustBench applies unless a model's own is stated.
_PICTURES = "Preprocessing(resize=256, crop=(224, 224), interpolation='bilinear')"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What a published board's numbers are of: ``n`` images of a dataset, a norm and its radius."""

    dataset: str
    norm: str
    eps: float
    n: int

    @property
    def written(self) -> str:
        return radius(self.eps)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a run's files say of its protocol.

    ``zoo`` is the (dataset, threat) of RobustBench's board where the model is of its zoo. ``nested`` says whether the
    images are among the board's own: None where that cannot be known. ``standard`` says whether the attack is
    AutoAttack with at least its standard parts and budgets, searched in float32, or a worst case over several with it.
    """

    family: str
    zoo: tuple[str, str] | None
    nested: bool | None
    norm: str
    eps: float | None
    curve: bool
    goal: str
    n: int
    dataset: str
    attack: dict[str, Any]
    standard: bool
    mode: str
    draws: int
    preprocessing: str


def of(dataset: str, threat: str) -> Protocol | None:
    """Return the protocol of a board by RobustBench's names; None of corruptions."""
    eps = usual_protocol.usual(dataset, threat.lower())
    if eps is None or (dataset, threat) not in robustbench.boards():
        return None
    return Protocol(dataset=dataset, norm=threat.lower(), eps=eps, n=robustbench.IMAGES[dataset])


def facts(run: RunFolder, results: dict[str, Any]) -> Facts:
    """Return the facts of a complete run."""
    threat, source = results["threat"], str(results["model"].get("source", ""))
    dataset = results["dataset"]["name"]
    zoo = None
    if source.startswith("robustbench ") and len(board := source.removeprefix("robustbench ").split("/")) == 2:
        zoo = (board[0], board[1])
    family = zoo[0] if zoo else usual_protocol.family(dataset)
    eps = threat["eps"]
    return Facts(
        family=family,
        zoo=zoo,
        nested=_nested(run, dataset, family),
        norm=threat["norm"],
        eps=eps[-1] if isinstance(eps, list) else eps,
        curve=isinstance(eps, list),
        goal=threat["goal"],
        n=results["robust"]["accuracy"]["n"],
        dataset=dataset,
        attack=results["attack"],
        standard=_standard(run),
        mode=str(run.run["plan"].get("mode", "exact")),
        draws=int(run.run.get("draws", 1)),
        preprocessing=str(run.run.get("digests", {}).get("preprocessing", "")),
    )


def board_of(facts: Facts) -> Protocol | None:
    """Return the protocol of the published board of a run's data and norm; None where there is no such board."""
    threat = robustbench.THREATS.get(facts.norm)
    return None if threat is None else of(facts.family, threat)


def differences(facts: Facts, board: Protocol | None, results: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return what makes a run not comparable with the board, and what merely differs; both empty without a board."""
    if board is None:
        return [], []
    hard, soft = [], []
    if facts.eps is not None and facts.eps != board.eps:
        near = abs(facts.eps - board.eps) <= _NEARLY * board.eps
        (soft if near else hard).append(f"eps {radius(facts.eps)}, not {board.written}")
    if facts.goal != "top1":
        hard.append(f"broken means out of the {facts.goal}")
    if not facts.standard:
        hard.append(_attack(facts))
    elif facts.attack.get("version") != "standard":
        named = " ".join(filter(None, (facts.attack["name"], facts.attack.get("version"))))
        soft.append(f"{named}: breaks at least as many")
    if facts.nested is None:
        hard.append(f"images of dataset={facts.dataset}")
    elif not facts.nested:
        soft.append("not among the board's images" if facts.dataset == board.dataset else f"dataset={facts.dataset}")
    if facts.n != board.n:
        soft.append(f"n={facts.n}, not {board.n}")
    if facts.family == "imagenet" and facts.zoo is None and facts.preprocessing != _PICTURES:
        soft.append(f"pictures: {_pictures(facts.preprocessing)}, not 256, crop 224")
    if facts.mode == "fast+standard":
        soft.append("searched in bfloat16 first")
    if facts.draws > 1:
        soft.append(f"randomised: mean prediction of {facts.draws} passes")
    return hard, soft


def disagreements(facts: Facts, board: Protocol, results: dict[str, Any], entry: Entry) -> tuple[str, ...]:
    """Return how a run of a zoo's model departs from its own entry by more than sampling: clean, and under AutoAttack.

    Under an attack that is no AutoAttack only a lower accuracy than published is a contradiction.
    """
    said = []
    clean, robust = results["clean"]["accuracy"], results["robust"]["accuracy"]
    if _departs(clean["correct"], clean["n"], entry.clean_acc / 100, board.n, facts.nested):
        said.append(_contradiction("clean", clean, entry.clean_acc))
    published = entry.autoattack_acc
    same = facts.eps is not None and abs(facts.eps - (entry.radius or 0)) < 1e-9 and facts.goal == "top1"
    if (
        published is not None
        and same
        and _departs(robust["correct"], robust["n"], published / 100, board.n, facts.nested)
    ):
        lower = robust["value"] < published / 100
        if facts.standard or lower:
            said.append(_contradiction("robust", robust, published))
    return tuple(said)


def apart(p: float, n: int, q: float, m: int) -> bool:
    """Return whether two accuracies of n and m images differ by more than their unpaired 95 % sampling error."""
    return abs(p - q) > _Z * float(np.sqrt(p * (1 - p) / n + q * (1 - q) / m))


def _departs(k: int, n: int, published: float, of: int, nested: bool | None) -> bool:
    """Return whether k of n images contradict a published accuracy of ``of`` images, at 5 %.

    Where the n images were drawn from those, k is hypergeometric; otherwise both are samples of more.
    """
    if nested is None or abs(k / n - published) <= _SLACK:
        return False
    if not nested or n > of:
        return apart(k / n, n, published, of)
    drawn = hypergeom(of, round(published * of), n)
    return bool(2 * min(drawn.cdf(k), drawn.sf(k - 1)) < 0.05)


def _contradiction(what: str, rate: dict[str, Any], published: float) -> str:
    return f"{what} {100 * rate['value']:.2f} %, but its entry says {published:.2f} %: more than sampling"


def _standard(run: RunFolder) -> bool:
    if parts := run.run.get("parts"):
        return any(_standard(RunFolder(run.path / "parts" / part["name"])) for part in parts)
    attack, plan = run.run["attack"], run.run["plan"]
    known = attack["name"] in ("autoattack", "reference/autoattack") and attack.get("version") in ("standard", "plus")
    budgets = attack.get("steps") == 100 and attack.get("queries") == 5000
    return known and budgets and plan.get("mode", "exact") != "fast"


def _nested(run: RunFolder, dataset: str, family: str) -> bool | None:
    if dataset not in (family, f"{family}_samples"):
        return None  # the user's own images, whatever the model was made for
    if dataset != "imagenet":
        return dataset == family
    ids = np.asarray(run.samples()["id"]) + 1
    return bool(np.isin(ids, robustbench.imagenet_pictures()).all())


def _attack(facts: Facts) -> str:
    """Return what kind of bound an attack other than AutoAttack gives."""
    attack = facts.attack
    if "autoattack" in attack["name"] and not attack["name"].startswith("worst of"):
        if facts.mode == "fast":
            return "AutoAttack searched in bfloat16 alone: an upper bound"
        if attack.get("version") in ("standard", "plus"):
            return f"AutoAttack of {attack.get('steps')} steps and {attack.get('queries')} queries: an upper bound"
        return f"AutoAttack {attack.get('version')}, not standard"
    return f"{attack['name']}, not AutoAttack: an upper bound"


def _pictures(preprocessing: str) -> str:
    return preprocessing.removeprefix("Preprocessing(").removesuffix(")") or "unknown"
