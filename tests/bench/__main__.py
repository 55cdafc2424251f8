"""``make bench``: our engine beside other libraries on the same images, networks and budgets, in one process.

Runs in the environment of ``make peers``. Networks are in eval mode and otherwise as a user hands them over; whether
parameters want gradients is the same for both sides (--freeze: they do not). Images are as a dataset has them: those
that the network gets wrong are attacked by whoever does not look. One thread.
"""

import argparse
import dataclasses
import itertools
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import measure
import nets
import torch
from contenders import OURS, PEERS, Budget, Problem, silence

from robusteval.engine.stages import Mode

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
TINY = Budget(steps=2, queries=2)
FULL = Budget(steps=100, queries=5000)
# APGD leaves about 15 %; of ResNet-2B 13 % of all and 18 % of those it gets right (18 JPEGs are of the first 200).
WEAK = (("mnist_cnn", "0.11", 500), ("resnet2b", "9/255", 1200), ("resnet32", "1.25/255", 64))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line to measure: our attack against a peer on a network at a radius, and how much faster it shall be.

    ``n`` images at most, so that few rows take much longer than a quarter of an hour.
    """

    key: str
    net: str
    eps: str
    attack: str
    peer: str
    budget: Budget
    goal: float
    n: int = 128
    mode: Mode = "exact"

    @property
    def radius(self) -> float:
        above, _, below = self.eps.partition("/")
        return float(above) / float(below or 1)


def rows() -> Iterator[Row]:
    """Yield every row: undefended, weak and robust networks, MNIST's and CIFAR's.

    ResNet-32 is undefended, so that it is weak or robust only in balls as small as those below.
    """
    goals = {"torchattacks": (15.0, 1.2), "foolbox": (20.0, 1.6), "ART": (20.0, 1.6)}
    for peer, (undefended, robust) in goals.items():
        for net, eps, n in (("mnist_cnn", "0.3", 500), ("resnet32", "8/255", 64)):
            budget = dataclasses.replace(FULL, steps=40)
            yield Row(key="pgd", net=net, eps=eps, attack="pgd", peer=peer, budget=budget, goal=undefended, n=n)
        for net, eps, n in (("mnist_cnn_at", "0.3", 250), ("resnet2b", "2/255", 200), ("resnet32", "0.25/255", 16)):
            yield Row(key="pgd100", net=net, eps=eps, attack="pgd", peer=peer, budget=FULL, goal=robust, n=n)
    for net, eps, n in WEAK:
        peer = "pyautoattack apgd-ce"
        yield Row(key="apgd", net=net, eps=eps, attack="apgd-ce", peer=peer, budget=FULL, goal=4.5, n=n)
    robust = (("mnist_cnn_at", "0.3", 250), ("resnet2b", "2/255", 200), ("resnet32", "0.25/255", 16))
    fewer = dataclasses.replace(FULL, steps=20)
    for net, eps, n in robust:
        budget, peer = fewer if net == "resnet32" else FULL, "pyautoattack fab-t"
        yield Row(key="fab", net=net, eps=eps, attack="fab-t", peer=peer, budget=budget, goal=2.5, n=n)
    modes: tuple[tuple[str, Mode, float], ...] = (("aa", "exact", 1.7), ("fast", "fast", 2.3))
    for (key, mode, goal), (net, eps, n) in itertools.product(modes, robust):
        budget = dataclasses.replace(fewer, queries=500) if net == "resnet32" else FULL
        peer = "pyautoattack"
        yield Row(key=key, net=net, eps=eps, attack="autoattack", peer=peer, budget=budget, goal=goal, n=n, mode=mode)


HEAD = (
    "| network | eps | attack | against | times faster (95 % interval) | goal | accuracy: clean, ours, theirs "
    "| differ: only ours, only theirs | passes an image: forward, backward | engine time / pass time |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def line(row: Row, found: Sequence[measure.Pair]) -> str:
    """Return the row of the table: medians over the pairs, with accuracies and differences as means."""
    low, high, coverage = measure.interval([pair.ratio for pair in found])
    n, several = len(found[0].broken), len(found)
    ours, theirs = (
        100 - 100 * sum(int(one.sum()) for one in each) / n / several
        for each in ([pair.broken for pair in found], [pair.broken_theirs for pair in found])
    )
    only_ours = sum(int((pair.broken & ~pair.broken_theirs).sum()) for pair in found) / several
    only_theirs = sum(int((pair.broken_theirs & ~pair.broken).sum()) for pair in found) / several
    covers = "" if coverage >= 0.95 else f", covers {100 * coverage:.0f} %"
    cells = [
        row.net,
        row.eps,
        f"{row.attack}, {row.budget.steps} steps{'' if row.mode == 'exact' else ', ' + row.mode}",
        row.peer,
        f"**{measure.middle([pair.ratio for pair in found]):.2f}** ({low:.2f} – {high:.2f}{covers})",
        f"{row.goal:g}",
        f"{100 * float(found[0].clean.float().mean()):.1f} %, {ours:.1f} %, {theirs:.1f} % of {n}",
        f"{only_ours:.1f}, {only_theirs:.1f}",
        f"{sum(p.forward for p in found) / n / several:.0f}, {sum(p.backward for p in found) / n / several:.0f}",
        f"{measure.middle([pair.ours / pair.pure for pair in found]):.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str]) -> int:
    """Measure the rows that were asked for; print the table, and write it where --out says."""
    parser = argparse.ArgumentParser(prog="make bench", description="Speed side by side with other libraries.")
    keys = sorted({row.key for row in rows()})
    parser.add_argument("--rows", nargs="+", default=["all"], choices=["all", *keys], help="which rows")
    parser.add_argument("--nets", nargs="+", default=None, help="only these networks")
    parser.add_argument("--n", type=int, default=None, help="images of a network at most")
    parser.add_argument("--pairs", type=int, default=6, help="runs of each side (the least for a 95 %% interval: 6)")
    parser.add_argument("--steps", type=int, default=None, help="other than the budgets of the rows")
    parser.add_argument("--queries", type=int, default=None, help="of Square, other than 5000")
    parser.add_argument("--freeze", action="store_true", help="parameters want no gradients, on both sides")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where both sides run")
    parser.add_argument("--data", type=Path, default=SHARED, help="folder with cifar10/")
    parser.add_argument("--out", type=Path, default=None, help="file for the table")
    given = parser.parse_args(argv)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine shows no CUDA device to torch; use --device cpu")
    if given.pairs < 1 or (given.n is not None and given.n < 1):
        parser.error("--n and --pairs are at least 1")
    torch.set_num_threads(1)
    table = [_machine(given.pairs, given.device), "", HEAD]
    print("\n".join(table), flush=True)
    for row in rows():
        if not {"all", row.key} & set(given.rows) or (given.nets is not None and row.net not in given.nets):
            continue
        if (path := nets.lacking(row.net, given.data)) is not None:
            print(f"skipped {row.net}: {path} is absent", file=sys.stderr)
            continue
        steps, queries = given.steps or row.budget.steps, given.queries or row.budget.queries
        row = dataclasses.replace(row, budget=Budget(steps=steps, queries=queries), n=given.n or row.n)
        table.append(line(row, list(_pairs(row, given.pairs, given.data, given.device, freeze=given.freeze))))
        print(table[-1], flush=True)
        if given.out is not None:  # after each row: the next may take an hour
            given.out.write_text("\n".join(table) + "\n", encoding="utf-8")
    return 0


def _pairs(row: Row, count: int, data: Path, device: str, *, freeze: bool) -> Iterator[measure.Pair]:
    net = nets.load(row.net, row.n, data).on(device)
    net.module.requires_grad_(not freeze)
    problem = Problem(network=net.module, images=net.images, labels=net.labels, eps=row.radius)
    ours, peer = OURS[row.attack], PEERS[row.peer]
    few = dataclasses.replace(problem, images=problem.images[:16], labels=problem.labels[:16])
    with silence():  # imports, allocations, first calls
        list(measure.pairs(few, TINY, ours, peer, 1, row.mode))
    for number, pair in enumerate(measure.pairs(problem, row.budget, ours, peer, count, row.mode), 1):
        print(
            f"{row.key} {row.net} {row.peer}, pair {number} of {count}: {pair.ours:.2f} s, {pair.theirs:.2f} s, "
            f"{pair.ratio:.2f} times; engine / passes {pair.ours / pair.pure:.2f}",
            file=sys.stderr,
            flush=True,
        )
        yield pair


def _machine(pairs: int, device: str) -> str:
    """Return a sentence on where and how this was measured."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    host = f"{names[0] if names else platform.processor() or platform.machine()}, 1 thread"
    where, seconds = (
        (f"{torch.cuda.get_device_name(device)} (host: {host})", "the clock (theirs with torch's default, TF32)")
        if device == "cuda"
        else (host, "seconds of the processor")
    )
    return (
        f"{where}, torch {torch.__version__}, "
        f"{datetime.now(UTC):%Y-%m-%d}; medians of {pairs} pairs run in turn in one process, by {seconds}, "
        "without either side's set-up; the interval is of the median, by order statistics. Images that the "
        "network gets wrong are among them, and attacked by who does not look."
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
