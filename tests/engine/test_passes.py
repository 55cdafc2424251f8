"""Padding, logits and gradients of passes, against the network called by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robusteval.attacks.base import Query
from robusteval.closed_form import small_convnet
from robusteval.engine.passes import QUANTUM, Chance, Passes, padded
from robusteval.engine.selftest import bitwise, check_answer, quantum
from robusteval.errors import UserError


class Recorder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.network = small_convnet()

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        return self.network(images)


def images(n: int) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("n", [1, 15, 16, 17, 32])
def test_padding_repeats_the_first_row_and_never_shares_memory(n: int) -> None:
    points = images(n)
    wide = padded(points)
    assert len(wide) % QUANTUM == 0
    assert len(wide) - n < QUANTUM
    assert torch.equal(wide[:n], points)
    assert all(torch.equal(row, points[0]) for row in wide[n:])
    wide.zero_()
    assert points.sum() > 0


@pytest.mark.parametrize("n", [1, 16, 40, 70])
def test_every_physical_batch_is_a_multiple_of_16_and_at_most_the_batch(n: int) -> None:
    recorder = Recorder().eval()
    passes = Passes(module=recorder, batch=32)
    logits = passes.logits(images(n))
    assert logits.shape == (n, 10)
    assert all(size % QUANTUM == 0 and size <= 32 for size in recorder.sizes)
    assert sum(recorder.sizes) == -(-n // QUANTUM) * QUANTUM
    with torch.no_grad():
        assert torch.allclose(logits, recorder.network(images(n)), atol=1e-5)
    passes.ask(Query(points=images(min(n, 32)), loss=lambda logits: logits[:, 0]))
    assert recorder.sizes[-1] % QUANTUM == 0


@pytest.mark.parametrize(("n", "size"), [(1, 4), (4, 4), (13, 16), (17, 20), (61, 64), (65, 80), (81, 96)])
def test_where_it_was_tried_batches_are_padded_to_multiples_of_4_up_to_64(n: int, size: int) -> None:
    recorder = Recorder().eval()
    passes = Passes(module=recorder, batch=96, quantum=4)
    assert passes.logits(images(n)).shape == (n, 10)
    assert passes.ask(Query(points=images(n), loss=lambda logits: logits[:, 0])).slope.shape == (n, 1, 8, 8)
    assert recorder.sizes == [size, size]


class BySize(Recorder):
    """A network whose last bits move with the size of the batch where that is odd in units of ``unit``."""

    def __init__(self, unit: int) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits * (1 + 1e-6) if len(images) % self.unit else logits


class OnlySixteen(Recorder):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.view(-1, 16, 1, 8, 8).flatten(0, 1))


class Detached(Recorder):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).detach()


class Plain(nn.Module):
    """A network without sums, so that no bit can depend on the batch; it counts as large as it says."""

    def __init__(self, weights: int = 0) -> None:
        super().__init__()
        self.spare = nn.Parameter(torch.zeros(weights))
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        return images.flatten(1)[:, :10] * 3


class Confident(nn.Module):
    """Where its cross-entropy is zero, gradients with other bits in batches that are no multiples of 16."""

    def forward(self, images: Tensor) -> Tensor:
        logits = images.flatten(1)[:, :10] + 1e4 * torch.eye(10)[0]
        return Slope.apply(logits)  # pyright: ignore[reportReturnType]


class Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient * (1 + 1e-6) if len(gradient) % 16 else gradient


def test_fine_batches_are_for_small_networks_whose_bits_do_not_show_them() -> None:
    points = images(32)

    def found(module: nn.Module, n: int = 32, batch: int = 64) -> int:
        return quantum(Passes(module=module, batch=batch), points[:n])

    assert found(Plain()) == found(Plain(), n=1) == found(Plain(2_000_000)) == 4
    assert found(BySize(4)) == found(BySize(4), n=3) == found(small_convnet())
    assert found(BySize(8)) == found(BySize(16)) == 16
    assert found(OnlySixteen()) == found(Detached()) == found(Confident()) == 16
    few = Plain()
    assert found(few, batch=16) == 4
    assert max(few.sizes) == 16, "no more at once than may be asked"
    for module, shape in ((Plain(2_000_001), (4, 1, 8, 8)), (Plain(), (4, 1, 65, 8))):
        assert quantum(Passes(module=module, batch=64), torch.rand(shape)) == 16
        assert not module.sizes, "of large networks and images nothing is tried"


def test_a_batch_of_any_size_gives_the_same_bits_where_fine_ones_are_used() -> None:
    module = small_convnet()
    points = images(96)
    fine = quantum(Passes(module=module, batch=96), points)
    passes = Passes(module=module, batch=96, quantum=fine)
    due = passes.ask(Query(points=points, loss=lambda logits: logits[:, 0]))
    for n in range(1, 97):
        came = passes.ask(Query(points=points[:n], loss=lambda logits: logits[:, 0]))
        assert torch.equal(came.logits, due.logits[:n])
        assert torch.equal(came.slope, due.slope[:n])


@pytest.mark.parametrize("n", [1, 7, 16])
def test_gradient_is_that_of_each_row_alone(n: int) -> None:
    module = small_convnet()
    weights = torch.arange(1.0, n + 1)
    answer = Passes(module=module, batch=16).ask(Query(points=images(n), loss=lambda z: weights * z[:, 3] ** 2))
    points = images(n).requires_grad_()
    for row in range(n):
        logits = module(points[row : row + 1])
        (gradient,) = torch.autograd.grad((row + 1.0) * logits[0, 3] ** 2, points)
        assert torch.allclose(answer.slope[row], gradient[row], atol=1e-4, rtol=1e-4)
        assert answer.loss is not None
        assert answer.loss[row] == pytest.approx(float((row + 1.0) * logits[0, 3].detach() ** 2), rel=1e-4)
    assert not answer.logits.requires_grad


def test_half_precision_logits_arrive_in_float32() -> None:
    class Half(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :4].half()

    passes = Passes(module=Half(), batch=16)
    assert passes.logits(images(3)).dtype == torch.float32
    assert passes.ask(Query(points=images(3), loss=lambda z: z.sum(1))).slope.dtype == torch.float32


def test_an_answer_without_a_gradient_has_no_slope() -> None:
    answer = Passes(module=small_convnet(), batch=16).ask(Query(points=images(2)))
    with pytest.raises(LookupError):
        _ = answer.slope


class PerBatch(nn.Module):
    """A network whose rows depend on the size of their batch."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :4] * (1 + 1e-3 * len(images))


def test_the_selftest_tells_networks_whose_rows_depend_on_the_batch() -> None:
    for gradients in (False, True):
        assert bitwise(Passes(module=small_convnet(), batch=48), images(32), gradients=gradients)
        assert not bitwise(Passes(module=PerBatch(), batch=48), images(32), gradients=gradients)


class PerPlace(nn.Module):
    """A network whose rows depend on their place in the batch."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :4] * (1 + 1e-3 * torch.arange(len(images))[:, None])


def test_few_images_are_compared_among_themselves() -> None:
    seen: list[int] = []
    network = small_convnet()
    network.register_forward_pre_hook(lambda _, points: seen.append(len(points[0])))
    assert bitwise(Passes(module=network, batch=64), images(8), gradients=True)
    assert seen == [16, 16], "no larger batch will be asked"
    assert not bitwise(Passes(module=PerPlace(), batch=64), images(8), gradients=False)


def answer_of(forward: object) -> None:
    from robusteval.classifier import Classifier

    class Model(nn.Module):
        def forward(self, images: Tensor) -> object:
            return forward(images)  # pyright: ignore[reportCallIssue]

    classifier = Classifier(module=Model(), name="mine", source="test", classes=10)
    check_answer(classifier, Passes(module=classifier.module, batch=16), images(4))


def test_a_model_that_answers_anything_but_logits_is_refused() -> None:
    wrong = [
        lambda x: (torch.zeros(len(x), 10),),
        lambda x: torch.zeros(len(x), 9),
        lambda x: torch.zeros(len(x), 10, dtype=torch.long),
        lambda x: torch.zeros(len(x), 10, 1),
        lambda x: nn.Linear(3, 10)(x.flatten(1)),
        lambda x: {}["logits"],
        lambda x: x.no_such_method(),
    ]
    for forward in wrong:
        with pytest.raises(UserError, match="model=mine"):
            answer_of(forward)
    answer_of(lambda x: torch.zeros(len(x), 10))


class Fails(nn.Module):
    """A network that raises ``error`` when gradients are wanted, in its forward or its backward pass."""

    def __init__(self, error: BaseException, *, backward: bool = False) -> None:
        super().__init__()
        self.error, self.backward = error, backward

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad and self.backward:
            images.register_hook(self._raise)
        elif images.requires_grad:
            self._raise(images)
        return images.flatten(1)[:, :4]

    def _raise(self, _: Tensor) -> None:
        raise self.error


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("error", [RuntimeError("no\nnumpy"), KeyError("x"), SystemExit(0)])
def test_a_network_that_fails_is_told_in_a_sentence(error: BaseException, backward: bool) -> None:
    passes = Passes(module=Fails(error, backward=backward), batch=16)
    direction = "backward" if backward else "forward"
    with pytest.raises(UserError, match=rf"{direction} pass raised {type(error).__name__}.*\(test_passes.py, line"):
        passes.ask(Query(points=images(4), loss=lambda logits: logits.sum(1)))


def test_the_selftest_takes_numbers_that_are_not_finite_for_what_they_are() -> None:
    class NotFinite(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :4] * torch.tensor([1, 1, torch.nan, torch.inf])

    assert bitwise(Passes(module=NotFinite(), batch=48), images(32), gradients=True)


def test_a_model_that_drops_the_dimension_of_a_single_image_is_none_the_worse() -> None:
    from robusteval.classifier import Classifier

    class Squeezes(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :10].squeeze()

    classifier = Classifier(module=Squeezes(), name="mine", source="test", classes=10)
    check_answer(classifier, Passes(module=classifier.module, batch=16), images(1))


def test_weights_of_another_type_are_named() -> None:
    from robusteval.classifier import Classifier

    module = nn.Sequential(nn.Flatten(), nn.Linear(images(1).numel(), 10)).double()
    classifier = Classifier(module=module, name="mine", source="test", classes=10)
    with pytest.raises(UserError, match=r"torch\.float64"):
        check_answer(classifier, Passes(module=module, batch=16), images(4))


def test_a_loss_of_several_values_gets_a_gradient_for_each() -> None:
    module, points = small_convnet(), images(5)
    answer = Passes(module=module, batch=16).ask(Query(points=points, loss=lambda z: z - z[:, :1]))
    assert answer.value.shape == (5, 10)
    assert answer.slope.shape == (5, 10, *points.shape[1:])
    for number in (0, 3, 9):
        single = Passes(module=module, batch=16).ask(
            Query(points=points, loss=lambda z, number=number: z[:, number] - z[:, 0])
        )
        torch.testing.assert_close(answer.slope[:, number], single.slope)


class Noisy(nn.Module):
    """Adds normal noise to the image, as a randomised network does."""

    def __init__(self) -> None:
        super().__init__()
        self.network = small_convnet()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images + 0.3 * torch.randn_like(images))


def test_repeated_passes_are_averaged() -> None:
    """The mean of the single passes that the same chance gives, taken by hand."""
    module, points = Noisy().eval(), images(4)
    chance = Chance(seed=3)
    query = Query(points=points, loss=lambda z: z[:, 2], repeat=3)
    chance.begin("unit")
    answer = Passes(module=module, batch=16, chance=chance).ask(query)
    chance.begin("unit")
    alone = Passes(module=module, batch=16, chance=chance)
    singles = [alone.ask(Query(points=points, loss=lambda z: z[:, 2])) for _ in range(3)]
    assert not torch.equal(singles[0].slope, singles[1].slope)
    torch.testing.assert_close(answer.slope, torch.stack([one.slope for one in singles]).mean(0))
    torch.testing.assert_close(answer.value, torch.stack([one.value for one in singles]).mean(0))
    softmax = torch.stack([one.logits.softmax(1) for one in singles]).mean(0)
    torch.testing.assert_close(answer.logits.exp(), softmax)
    assert alone.cost(query, answer) == (3, 3)


def test_a_randomised_network_is_judged_by_the_mean_softmax_of_its_draws() -> None:
    module, points = Noisy().eval(), images(20)
    judge = Passes(module=module, batch=16, draws=400, chance=Chance(seed=0))
    once = torch.stack([Passes(module=module, batch=32).logits(points).softmax(1) for _ in range(400)])
    torch.testing.assert_close(judge.logits(points).exp(), once.mean(0), atol=0.05, rtol=0)


def test_chance_depends_on_seed_unit_and_pass_alone() -> None:
    def numbers(seed: int, unit: str) -> list[float]:
        chance, found = Chance(seed=seed), []
        chance.begin(unit)
        for _ in range(3):
            chance.next()
            found.append(float(torch.rand(())))
        return found

    assert numbers(1, "pgd 0") == numbers(1, "pgd 0")
    different = [*numbers(1, "pgd 0"), *numbers(1, "pgd 1"), *numbers(2, "pgd 0")]
    assert len(set(different)) == 9
