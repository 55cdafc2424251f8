"""``make agreement``: standard AutoAttack, ours and its authors' code, by who stands at the end of each stage.

Runs in the environment of ``make peers``, on images that the network gets right, with full budgets, one thread, our
search in the form of an evaluation. Each run is kept in a file, so that a kill costs one run; ours and theirs take
turns. For each stage: how many stand by seed, how many of ours lie in the window of theirs (least - 1 to most + 1), and
the exact McNemar test over the images of all pairs of runs. Runs of one image are not independent (FAB-T draws no
numbers), so it stands beside a sign test in which each image counts once. The window widens with theirs' own noise and
sees no small shift; the tests do.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
import nets
import torch
from contenders import Problem, silence
from scipy.stats import binomtest

import robusteval
from robusteval import registry
from robusteval.threat import Norm, ThreatModel

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SIDES = {"theirs": "reference/autoattack", "ours": "autoattack"}
Stands = dict[str, list[bool]]  # by stage, for each image


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and a ball."""

    name: str
    net: str
    norm: Norm
    eps: float


CASES = (
    Case(name="mnist_linf", net="mnist_cnn_at", norm="linf", eps=0.3),
    Case(name="mnist_l2", net="mnist_cnn_at", norm="l2", eps=2.0),
    Case(name="mnist_l1", net="mnist_cnn_at", norm="l1", eps=6.0),
    Case(name="resnet2b_2", net="resnet2b", norm="linf", eps=2 / 255),
    Case(name="resnet2b_8", net="resnet2b", norm="linf", eps=8 / 255),
)


def main(argv: Sequence[str]) -> int:
    """Run what is not kept yet, then print the table of each case."""
    parser = argparse.ArgumentParser(prog="make agreement", description="The same number as AutoAttack's?")
    names = [case.name for case in CASES]
    parser.add_argument("--cases", nargs="+", default=names, choices=names, help="which networks and balls")
    parser.add_argument("--seeds", nargs="+", type=_whole(0), default=list(range(5)), help="default: 0 to 4")
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=list(SIDES), help="who runs")
    parser.add_argument("--n", type=_whole(1), default=200, help="images at most")
    parser.add_argument("--steps", type=_whole(1), default=100, help="of APGD and FAB")
    parser.add_argument("--queries", type=_whole(1), default=5000, help="of Square")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where both sides run")
    parser.add_argument("--data", type=Path, default=SHARED, help="folder with cifar10/")
    parser.add_argument("--out", type=Path, default=Path("agreement"), help="folder that keeps each run")
    given = parser.parse_args(argv)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine shows no CUDA device to torch; use --device cpu")
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    for case in (case for case in CASES if case.name in given.cases):
        if (path := nets.lacking(case.net, given.data)) is not None:
            print(f"skipped {case.name}: {path} is absent", file=sys.stderr)
            continue
        # Of CIFAR only the lossless images, of MNIST enough that so many are right.
        net = nets.load(case.net, given.n if case.net in nets.BUILD else 2 * given.n, given.data).right(given.n)
        net = net.on(given.device)
        found: dict[str, dict[int, Stands]] = {side: {} for side in SIDES}
        for seed in given.seeds:
            for side in given.sides:
                kept = given.out / f"{case.name}-{side}-{len(net.images)}-{given.steps}-{given.queries}-{seed}.json"
                made = facts(case, side, given.device)
                if (stands := read(kept, made)) is None:
                    stands = run(case, net, side, seed, given.steps, given.queries)
                    fresh = kept.with_suffix(".part")
                    fresh.write_text(json.dumps({"made": made, "stands": stands}), encoding="utf-8")
                    fresh.replace(kept)
                    counts = ", ".join(f"{stage} {sum(each)}" for stage, each in stands.items())
                    print(f"{case.name}, seed {seed}, {side}: {counts}", file=sys.stderr, flush=True)
                found[side][seed] = stands
        print("\n".join(table(case, found["theirs"], found["ours"])), flush=True)
    return 0


def facts(case: Case, side: str, device: str) -> dict[str, Any]:
    """Return what a run depends on besides what its file is called by: the ball, torch, where, and whose code."""
    library = registry.lookup(registry.ATTACKS, "attack.method", SIDES[side])().library()
    return {
        "norm": case.norm,
        "eps": case.eps,
        "torch": torch.__version__,
        "device": device,
        "code": library or _digest(),
    }


def read(path: Path, made: dict[str, Any]) -> Stands | None:
    """Return the kept run; None where there is none, or one of another ball or other code."""
    if not path.exists():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    return kept["stands"] if kept["made"] == made else None


def _digest() -> str:
    """Return the digest of our attacks and engine."""
    package = Path(robusteval.__file__).parent
    files = sorted(path for folder in ("attacks", "engine") for path in (package / folder).glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _whole(least: int) -> Callable[[str], int]:
    def whole(written: str) -> int:
        if (number := int(written)) < least:
            raise ValueError
        return number

    return whole


def run(case: Case, net: nets.Net, side: str, seed: int, steps: int, queries: int) -> Stands:
    """Return who stands at the end of each stage."""
    threat = ThreatModel(norm=case.norm, eps=case.eps)
    attack = registry.lookup(registry.ATTACKS, "attack.method", SIDES[side])(steps=steps, queries=queries)
    problem = Problem(network=net.module, images=net.images, labels=net.labels, eps=case.eps)
    with silence():
        boards = measure.Engine.of(problem, "exact").stages(attack, threat, "exact", seed)
        return {stage: (~board.broken).tolist() for stage, board in boards}


def table(case: Case, theirs: dict[int, Stands], ours: dict[int, Stands]) -> list[str]:
    """Return the lines of a case in Markdown."""
    lines = [
        f"\n{case.name}: {case.net}, {case.norm} {case.eps:.4g}\n",
        "| stage | theirs stand | ours stand | window: in it | only ours breaks, only theirs | p | by image: p |",
        "|---|---|---|---|---|---|---|",
    ]
    both = sorted(theirs.keys() & ours.keys())
    for stage in next(iter((theirs or ours).values())):
        t, o = ([sum(each[stage]) for _, each in sorted(side.items())] for side in (theirs, ours))
        cells = [stage, " ".join(map(str, t)) or "–", " ".join(map(str, o)) or "–", *["–"] * 4]
        if both:
            low, high = min(t) - 1, max(t) + 1
            change = torch.tensor([theirs[seed][stage] for seed in both]).int()
            change -= torch.tensor([ours[seed][stage] for seed in both]).int()
            counts = [(int((each > 0).sum()), int((each < 0).sum())) for each in (change, change.sum(0))]
            cells[3:] = [
                f"{low} – {high}: {sum(low <= count <= high for count in o)} of {len(o)}",
                f"{counts[0][0]}, {counts[0][1]}",
                _p(*counts[0]),
                f"{counts[1][0]}, {counts[1][1]}: {_p(*counts[1])}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _p(more: int, fewer: int) -> str:
    return f"{binomtest(more, more + fewer).pvalue:.3g}" if more + fewer else "1"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
