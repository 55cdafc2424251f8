"""Counted passes are the rows that the network really saw, sample by sample, padding left out."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robusteval.closed_form import small_convnet
from robusteval.engine.direct import search


class Counting(nn.Module):
    """Counts the rows of every pass by the sample they belong to, and the rows that a gradient came back for.

    The sample is written into a second channel, so far apart that no perturbation in the budget hides it (nor a sparse
    one beyond: the median counts), and the same for a value and its solarized image. Rows at the end that equal the
    first one are padding.
    """

    def __init__(self, network: nn.Module, n: int) -> None:
        super().__init__()
        self.network, self.n = network, n
        self.forwards: Counter[int] = Counter()
        self.backwards: Counter[int] = Counter()

    def mark(self, sample: int) -> float:
        return 0.5 * sample / self.n

    def forward(self, images: Tensor) -> Tensor:
        who = self._samples(images.detach())
        self.forwards.update(who)
        if images.requires_grad:
            images.register_hook(lambda gradient: self.backwards.update(who))
        return self.network(images[:, :1])

    def _samples(self, images: Tensor) -> list[int]:
        real = len(images)
        while real > 1 and torch.equal(images[real - 1], images[0]):
            real -= 1
        values = images[:real, 1].flatten(1).median(1).values
        return [round(float(torch.minimum(v, 1 - v)) * 2 * self.n) for v in values]


@pytest.mark.parametrize(("slots", "stop"), [(3, "first"), (16, "never")])
def test_counts_are_the_rows_that_were_passed(case: Any, slots: int, stop: Any) -> None:
    if case.norm == "unbounded" and not case.attack.own_set:
        pytest.skip("an unbounded perturbation hides which sample a row belongs to")
    survey = case.attack.columns() is not None
    if stop == "never" and not case.leads:
        pytest.skip("the whole budget is tried with each attack's first options")
    if survey and stop == "never":
        pytest.skip("a survey stops at nothing anyway, and its many passes are counted once")
    if case.attack.parametric and case.attack.method != "solarize":
        pytest.skip("its transform hides which sample a row belongs to; the family asks as solarize does")
    n = 4 if survey else 10
    counting = Counting(small_convnet(classes=5), n)
    images = torch.rand(n, 2, 8, 8, generator=torch.Generator().manual_seed(4))
    for sample in range(n):
        images[sample, 1] = counting.mark(sample)
    labels = counting.network(images[:, :1]).argmax(1)
    labels[3] = (labels[3] + 1) % 5  # wrong without an attack
    eps = {"linf": 0.02, "l2": 0.15, "l1": 1.2}.get(case.norm)
    board = search(case.attack, counting, images, labels, case.within(eps), slots=slots, stop=stop)
    clean = 1  # the pass on the clean image is not the stage's, and counted elsewhere
    assert [counting.forwards[i] - clean for i in range(n)] == board.forward.tolist()
    assert [counting.backwards[i] for i in range(n)] == board.backward.tolist()
    if stop == "first" and not survey:
        assert board.forward[3] == 0, "a sample that is wrong already is not attacked"
    if case.attack.stages(case.norm):
        assert board.forward.sum() > 0


def test_what_a_run_costs_is_what_the_docstrings_say() -> None:
    """Where nothing breaks: (A)PGD steps + 1 of each kind a restart and target, FGSM 2 and 1, noise 1 a query.

    FAB twice as many forward passes as steps, and as many backward ones.
    """
    from robusteval.attacks.apgd import APGD
    from robusteval.attacks.fab import FAB
    from robusteval.attacks.fgsm import FGSM
    from robusteval.attacks.noise import Noise
    from robusteval.attacks.pgd import PGD
    from robusteval.attacks.solarize import Solarize
    from robusteval.closed_form import linear_problem
    from robusteval.threat import ThreatModel

    problem = linear_problem("linf", (1, 3, 3), classes=10)
    threat = ThreatModel(norm="linf", eps=0.05)
    for attack, forward, backward in (
        (FGSM(), 2, 1),
        (PGD(steps=7), 8, 8),
        (PGD(steps=4, n_restarts=3), 15, 15),
        (PGD(steps=4, n_restarts=2, n_targets=3, loss="targeted_ce"), 30, 30),
        (APGD(steps=7), 8, 8),
        (APGD(steps=4, n_restarts=2, n_targets=3, loss="targeted_dlr"), 30, 30),
        (FAB(steps=4, n_restarts=2, n_targets=3), 48, 24),
        (Noise(queries=6), 6, 0),
        (Solarize(iterations=4), 4, 0),
        (Solarize(mode="exhaustive"), 257, 0),
        (Solarize(mode="universal"), 101, 0),
    ):
        board = search(attack, problem.module, problem.images, problem.labels, threat)
        confirmed = board.moved.long() * int(attack.columns() is None)
        assert (board.forward - confirmed).tolist() == [forward] * 8, attack
        assert board.backward.tolist() == [backward] * 8, attack
