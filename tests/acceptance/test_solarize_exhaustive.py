"""Solarization of real images before a real network, against a brute force that knows nothing of the engine."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from robusteval.attacks.solarize import Solarize
from robusteval.classifier import Classifier
from robusteval.cli import run
from robusteval.datasets.samples import Samples
from robusteval.engine.direct import search
from robusteval.metrics.survey import fooling_measure, random_search, thresholds
from robusteval.models.bundled import Bundled
from robusteval.models.efficientnet_lite0 import EfficientNetLite0
from robusteval.threat import ThreatModel

UNBOUNDED = ThreatModel(norm="unbounded", eps=None)


def brute_force(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return which of the 257 solarizations of each 8-bit image are misclassified, [n, 257]: grey values >= k inverted.

    Rows are computed 272 at a time (15 of them spare): a multiple of 16, in which a convolution's bits do not move.
    """
    grey = (images * 255).round()
    assert float((grey / 255 - images).abs().max()) < 1e-6, "brute force over 257 thresholds needs 8-bit images"
    ks = torch.arange(257).clamp(max=256).view(-1, 1, 1, 1)
    ks = torch.cat([ks, ks[:15]])
    wrong = torch.zeros(len(images), 257, dtype=torch.bool)
    with torch.no_grad():
        for i, (x, g) in enumerate(zip(images, grey, strict=True)):
            points = torch.where(g >= ks, 1 - x, x)
            logits = torch.cat([network(part) for part in points.split(16)])[:257]
            wrong[i] = logits.argmax(1) != labels[i]
    return wrong


def real(size: int | None) -> tuple[Classifier, Tensor, Tensor]:
    """Return EfficientNet-Lite0 and the 20 ImageNet pictures, shrunk to ``size`` px on the 8-bit grid."""
    source, data = EfficientNetLite0(), Samples(name="imagenet_samples")
    for part in (source, data):
        if sentence := part.missing():
            pytest.skip(sentence)
    classifier = source.load()
    dataset = data.load(classifier.preprocessing, seed=0)
    images = dataset.images(np.arange(len(dataset)))
    if size is not None:
        images = nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        images = (images * 255).round() / 255
    classifier.module.eval()
    return classifier, images, torch.from_numpy(dataset.labels)


@pytest.mark.slow
def test_every_verdict_is_that_of_the_brute_force_on_small_pictures() -> None:
    """The real network on the real pictures at 64 px, where it still recognises some of them: a twelfth of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    classifier, images, labels = real(64)
    with torch.no_grad():
        right = (classifier.module(images).argmax(1) == labels).nonzero()[:, 0]
    assert len(right) >= 3
    chosen = right[:4]
    wrong = brute_force(classifier.module, images[chosen], labels[chosen])
    assert wrong.any(1).sum() > 0
    board = search(Solarize(mode="exhaustive"), classifier.module, images[chosen], labels[chosen], UNBOUNDED, slots=16)
    assert board.survey is not None
    assert torch.equal(board.survey.broken, wrong)
    assert torch.equal(board.broken, wrong.any(1))
    torch.set_num_threads(before)


def verdicts_agree(folder: Path, pictures: int) -> None:
    """Compare the command's run on so many of the 20 pictures with the brute force, flag by flag."""
    classifier, images, labels = real(None)
    command = ["model=efficientnet_lite0", "dataset=imagenet_samples", "attack=solarize", "attack.mode=exhaustive"]
    assert run([*command, f"dataset.n={pictures}", "logger=none", f"runs.dir={folder}"]) == 0
    (found,) = folder.glob("efficientnet_lite0-imagenet_samples-solarize-*")
    samples = pq.read_table(found / "samples.parquet")
    chosen = samples["id"].to_pylist()
    wrong = brute_force(classifier.module, images[chosen], labels[chosen])
    clean = ~wrong[:, 256]  # no grey value is 256 or more: the identity
    assert samples["clean_correct"].to_pylist() == clean.tolist()
    assert samples["robust"].to_pylist() == (clean & ~wrong.any(1)).tolist()
    (shard,) = (found / "shards").glob("*solarize*/*.parquet")
    flags = np.array(pq.read_table(shard)["survey_broken"].to_pylist())
    assert np.array_equal(flags, wrong.numpy())


@pytest.mark.real
@pytest.mark.timeout(3600)
def test_the_run_of_the_command_line_gives_the_verdicts_of_the_brute_force(tmp_path: Path) -> None:
    verdicts_agree(tmp_path, pictures=3)


def agrees_over_seeds(
    network: nn.Module, images: Tensor, labels: Tensor, wrong: Tensor, tries: int, seeds: int
) -> None:
    """RandSol over many seeds against the closed form, in total and image by image."""
    clean = (~wrong[:, 256]).numpy()
    measure = fooling_measure(~wrong.numpy(), thresholds())
    (due,) = random_search(clean, measure, [tries])
    assert due["se"] > 0, "nothing is left to chance here"
    attack = Solarize(mode="random", iterations=tries)
    standing = np.zeros(len(images))
    accuracy = []
    for seed in range(seeds):
        board = search(attack, network, images, labels, UNBOUNDED, seed=seed, slots=64)
        robust = ~board.broken.numpy()
        standing += robust
        accuracy.append(robust.mean())
    assert abs(np.mean(accuracy) - due["value"]) < 4 * due["se"] / np.sqrt(seeds)
    assert np.std(accuracy, ddof=1) == pytest.approx(due["se"], rel=5 / np.sqrt(2 * seeds))
    q = clean * (1 - measure) ** tries
    assert (np.abs(standing - seeds * q) <= 5 * np.sqrt(seeds * q * (1 - q)) + 1e-9).all()


@pytest.mark.parametrize("tries", [1, 10])
def test_random_search_agrees_with_the_closed_form_over_200_seeds(tries: int) -> None:
    data = Samples(name="mnist_samples")
    if sentence := data.missing():
        pytest.skip(sentence)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    classifier = Bundled(name="mnist_cnn").load()
    classifier.module.eval()
    dataset = data.load(classifier.preprocessing, seed=0)
    images, labels = dataset.images(np.arange(len(dataset))), torch.from_numpy(dataset.labels)
    wrong = brute_force(classifier.module, images, labels)
    agrees_over_seeds(classifier.module, images, labels, wrong, tries, seeds=200)
    torch.set_num_threads(before)


@pytest.mark.real
@pytest.mark.timeout(3600)
def test_random_search_of_the_real_network_agrees_with_the_closed_form_over_200_seeds() -> None:
    """At 64 px, as above; minutes rather than an hour."""
    classifier, images, labels = real(64)
    wrong = brute_force(classifier.module, images, labels)
    agrees_over_seeds(classifier.module, images, labels, wrong, tries=3, seeds=200)
