"""Randomness as a function: reference values of Philox, independence of company, and no two places alike."""

import itertools

import numpy as np
import pytest

from robusteval import randomness
from robusteval.randomness import draw, generator, stream, subset

MASK = (1 << 64) - 1


def philox4x64(counter: list[int], key: list[int], rounds: int = 10) -> list[int]:
    """Philox 4x64-10, written from Salmon et al. 2011, section 3.3 and table 2: nothing of numpy's."""
    (a, b, c, d), (k, m) = counter, key
    for number in range(rounds):
        if number:
            k, m = (k + 0x9E3779B97F4A7C15) & MASK, (m + 0xBB67AE8584CAA73B) & MASK
        one, two = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (two >> 64) ^ b ^ k, two & MASK, (one >> 64) ^ d ^ m, one & MASK
    return [a, b, c, d]


def test_philox_here_gives_the_published_vectors() -> None:
    """Known answers of Random123 (philox4x64 10): the reference is right before anything is held against it."""
    assert philox4x64([0] * 4, [0] * 2) == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]
    assert philox4x64([MASK] * 4, [MASK] * 2) == [
        0x87B092C3013FE90B,
        0x438C3C67BE8D0224,
        0x9CC7D7C69CD777B6,
        0xA09CAEBF594F0BA0,
    ]


def reference_uniform(
    count: int, *, seed: int, sample: int, name: str, restart: int, target: int, step: int
) -> np.ndarray:
    """float32 uniforms: upper 24 bits of each 32-bit half, low half first; the counter is raised before each block."""
    words: list[int] = []
    for block in itertools.count(1):
        if 2 * len(words) >= count:
            break
        words += philox4x64([block, step, (restart << 32) | target, stream(name)], [seed, sample])
    halves = [half for word in words for half in (word & 0xFFFFFFFF, word >> 32)]
    return np.array([(half >> 8) * 2.0**-24 for half in halves[:count]], dtype=np.float32)


@pytest.mark.parametrize(
    "place", [(0, 0, 0, 0, 0), (7, 123456, 2, 8, 40), (2**63 - 1, 2**40, 2**20, 999, 2**33)], ids=str
)
def test_uniform_numbers_are_philox_at_the_stated_place(place: tuple[int, int, int, int, int]) -> None:
    seed, sample, restart, target, step = place
    drawn = draw((3, 5), seed=seed, samples=[sample], name="pgd", restarts=[restart], targets=[target], step=step)
    due = reference_uniform(15, seed=seed, sample=sample, name="pgd", restart=restart, target=target, step=step)
    assert drawn.dtype == np.float32
    assert np.array_equal(drawn[0].ravel(), due)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_a_row_does_not_depend_on_its_company(kind: randomness.Kind) -> None:
    samples, restarts, targets = [4, 9, 4, 1000], [0, 0, 1, 2], [0, 3, 0, 1]
    together = draw((2, 6), seed=5, samples=samples, name="n", restarts=restarts, targets=targets, step=3, kind=kind)
    order = [2, 0, 3, 1]
    shuffled = draw(
        (2, 6),
        seed=5,
        samples=[samples[i] for i in order],
        name="n",
        restarts=[restarts[i] for i in order],
        targets=[targets[i] for i in order],
        step=3,
        kind=kind,
    )
    assert np.array_equal(shuffled, together[order])
    for row, values in enumerate(together):
        alone = draw(
            (2, 6),
            seed=5,
            samples=[samples[row]],
            name="n",
            restarts=[restarts[row]],
            targets=[targets[row]],
            step=3,
            kind=kind,
        )
        assert np.array_equal(alone[0], values)


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    short = draw((10,), seed=0, samples=[1], name="solarize", restarts=[0], targets=[0])
    long = draw((50,), seed=0, samples=[1], name="solarize", restarts=[0], targets=[0])
    assert np.array_equal(long[:, :10], short)


def test_no_two_places_share_numbers() -> None:
    seen: set[bytes] = set()
    places = list(itertools.product((0, 1), (0, 1, 2), ("a", "b"), (0, 1), (0, 1), (0, 1, 2)))
    for seed, sample, name, restart, target, step in places:
        seen.add(generator(seed, sample, name, restart, target, step).bytes(64))
    assert len(seen) == len(places)


def test_blocks_of_a_long_draw_do_not_run_into_the_next_step() -> None:
    """More numbers than 600 x 600 x 3 pixels need, and none of another step, restart or target among them."""
    long = {value.tobytes() for value in generator(0, 0, "a").integers(0, 2**63, 300_000).reshape(-1, 4)}
    for restart, target, step in ((0, 0, 1), (0, 1, 0), (1, 0, 0)):
        other = generator(0, 0, "a", restart, target, step).integers(0, 2**63, 4000).reshape(-1, 4)
        assert not long & {value.tobytes() for value in other}


def test_numbers_look_uniform_and_normal() -> None:
    from scipy import stats

    shape = {"seed": 3, "samples": range(200), "name": "n", "restarts": [0] * 200, "targets": [0] * 200}
    assert stats.kstest(draw((50,), **shape).ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(draw((50,), kind="normal", **shape).ravel(), "norm").pvalue > 1e-3
    across = draw((1,), **shape)[:, 0]
    assert stats.kstest(across, "uniform").pvalue > 1e-3, "across samples as well as along one"


def test_a_subset_is_sorted_without_repetition_and_seeded() -> None:
    chosen = subset(1000, 100, 4)
    assert len(set(chosen.tolist())) == 100
    assert np.array_equal(chosen, np.sort(chosen))
    assert np.array_equal(chosen, subset(1000, 100, 4))
    assert not np.array_equal(chosen, subset(1000, 100, 5))
    assert np.array_equal(subset(30, 30, 0), np.arange(30))
    counts = np.bincount(np.concatenate([subset(10, 3, seed) for seed in range(1000)]), minlength=10)
    assert abs(counts - 300).max() < 5 * np.sqrt(1000 * 0.3 * 0.7)
