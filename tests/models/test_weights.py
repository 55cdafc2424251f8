"""Weight files: what is in them comes back, what is not weights is refused in a sentence, and nothing in them runs."""

import hashlib
import os
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robusteval.classifier import Normalised
from robusteval.errors import UserError
from robusteval.models.weights import digest_of, fill, read


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def same(first, second) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def adam_state(network: nn.Module) -> dict:
    optimiser = torch.optim.Adam(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    return optimiser.state_dict()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.bin", "legacy.pth"])
def test_reads_what_was_written(tmp_path, name):
    state, path = net().state_dict(), tmp_path / name
    if name.endswith(".safetensors"):
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization="legacy" not in name)
    found = read(path)
    assert set(found) == set(state)
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_safetensors_under_another_name_is_recognised(tmp_path):
    save_file(net().state_dict(), tmp_path / "weights.ckpt")
    assert len(read(tmp_path / "weights.ckpt")) == 9


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state},
        lambda state: {"model": {"state_dict": state}, "epoch": 3, "args": {"lr": 0.1}},
        lambda state: {"state_dict": [state]},
        lambda state: [state],
    ],
)
def test_finds_a_nested_state_dict(tmp_path, wrap):
    state = net().state_dict()
    torch.save(wrap(state), tmp_path / "w.pt")
    assert same(read(tmp_path / "w.pt"), state)


def test_an_optimiser_is_not_taken_for_weights(tmp_path):
    network = net()
    torch.save({"net": network.state_dict(), "optimizer": adam_state(network), "epoch": 1}, tmp_path / "w.pt")
    assert same(read(tmp_path / "w.pt"), network.state_dict())


def test_several_state_dicts_need_a_choice(tmp_path):
    first, second = net().state_dict(), net().state_dict()
    torch.save({"model": first, "ema": {"shadow": second}}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"several state dicts \(model, ema.shadow\).*model\.key="):
        read(tmp_path / "w.pt")
    assert same(read(tmp_path / "w.pt", key="ema.shadow"), second)
    with pytest.raises(UserError, match=r"model\.key=exp.*model, ema\.shadow"):
        read(tmp_path / "w.pt", key="exp")


def test_a_prefix_is_explained_and_cut(tmp_path):
    network, path = net(), tmp_path / "w.pt"
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, path)
    with pytest.raises(UserError, match=r"begin with 'module\.'.*set model\.prefix=module\.$"):
        fill(net(), read(path), source=str(path))
    other = net()
    fill(other, read(path, prefix="module."), source=str(path))
    assert same(other.state_dict(), network.state_dict())
    with pytest.raises(UserError, match=r"model\.prefix=net\."):
        read(path, prefix="net.")


def test_a_prefix_is_found_among_other_tensors(tmp_path):
    state = {f"backbone.net.{name}": value for name, value in net().state_dict().items()}
    with pytest.raises(UserError, match=r"model\.prefix=backbone\.net\."):
        fill(net(), {**state, "normaliser.mean": torch.zeros(3)}, source="w.pt")


def test_a_prefix_that_merges_two_names_is_refused(tmp_path):
    torch.save({"a.w": torch.zeros(1), "w": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"model\.prefix=a\..*the same"):
        read(tmp_path / "w.pt", prefix="a.")


def write_bad(path: Path, kind: str) -> None:
    whole = path.with_name("whole.pt")
    torch.save(net().state_dict(), whole)
    content = {
        "empty": b"",
        "web page": b"\n  <!DOCTYPE html><html>Google Drive - Quota exceeded</html>",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
        "truncated": whole.read_bytes()[:-200],
        "half": whole.read_bytes()[: whole.stat().st_size // 2],
        "text": b"these are not weights\n" * 40,
        "noise": random.Random(0).randbytes(4096),
        "pickle": pickle.dumps({"a": 1.0}),
        "arrays": pickle.dumps(np.zeros(3)),
        "zip": b"",
        "no state dict": b"",
    }[kind]
    path.write_bytes(content)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
    if kind == "no state dict":
        torch.save({"epoch": 3, "loss": torch.zeros(())}, path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("empty", "empty"),
        ("web page", "HTML page"),
        ("lfs", "Git LFS pointer"),
        ("truncated", "truncated|safetensors"),
        ("half", "truncated|safetensors"),
        ("text", None),
        ("noise", None),
        ("pickle", None),
        ("arrays", None),
        ("zip", None),
        ("no state dict", "holds no state dict|safetensors"),
    ],
)
def test_refuses_bad_files(tmp_path, kind, says, suffix):
    path = tmp_path / f"bad{suffix}"
    write_bad(path, kind)
    with pytest.raises(UserError, match=says) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refuses_what_is_not_there(tmp_path):
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            read(path)


class Touch:
    """Touches a canary when unpickled without care."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def malicious(canary: Path) -> dict[str, object]:
    code = f"open({str(canary)!r}, 'w').close()"
    return {
        "os.system": Touch(os.system, f"touch {canary}"),
        "eval": Touch(eval, code),
        "exec": Touch(exec, code),
        "open": Touch(open, str(canary), "w"),
        "nested": {"state_dict": {"conv.weight": torch.zeros(1), "extra": [Touch(exec, code)]}},
        "path": Touch(Path.touch, canary),
    }


@pytest.mark.parametrize("form", ["pickle", "pickle 2", "zip", "legacy", "named safetensors"])
@pytest.mark.parametrize("kind", ["os.system", "eval", "exec", "open", "nested", "path"])
def test_code_in_a_file_never_runs(tmp_path, kind, form):
    canary, path = tmp_path / "canary", tmp_path / "w.pt"
    payload = malicious(canary)[kind]
    if form.startswith("pickle"):
        path.write_bytes(pickle.dumps(payload, protocol=2 if form.endswith("2") else None))
    elif form == "named safetensors":
        path = tmp_path / "w.safetensors"
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError, match=str(path)):
        read(path)
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path):
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(malicious(canary)["exec"]))
    assert canary.exists()


def test_the_switch_that_lets_files_run_code_is_refused(tmp_path, monkeypatch):
    torch.save(net().state_dict(), tmp_path / "w.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(UserError, match="TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        read(tmp_path / "w.pt")


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_damaged_files_give_a_sentence_or_weights(tmp_path, form):
    whole, path = tmp_path / "whole", tmp_path / "w.pt"
    state = {"a.weight": torch.randn(4, 4), "a.bias": torch.randn(4)}
    if form == "safetensors":
        save_file(state, whole)
    else:
        torch.save(state, whole, _use_new_zipfile_serialization=form == "zip")
    content, source, refused = whole.read_bytes(), random.Random(form), 0
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(source.randint(1, 4)):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        if source.random() < 0.3:
            del damaged[source.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        try:
            assert all(isinstance(value, torch.Tensor) for value in read(path).values())
        except UserError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value):
    state = net().state_dict()
    state["3.weight"][1, 2] = value
    with pytest.raises(UserError, match=r"w\.pt holds NaN or infinite numbers in '3\.weight'"):
        fill(net(), state, source="w.pt")


def test_a_difference_is_told():
    state = net().state_dict()
    state["3.weight"] = torch.zeros(5, 8)
    state["head"] = state.pop("0.bias")
    with pytest.raises(UserError, match=r"lacks 1 of 9 names \(0\.bias\).*1 that the network lacks \(head\).*\[5, 8\]"):
        fill(net(), state, source="w.pt")


def test_digest_in_closed_form():
    layer = nn.Linear(2, 1)
    content = (
        b"bias torch.float32 (1,)\n" + layer.bias.detach().numpy().tobytes() + b"weight torch.float32 (1, 2)\n"
    ) + layer.weight.detach().numpy().tobytes()
    assert digest_of(layer) == hashlib.sha256(content).hexdigest()


def test_digest_sees_every_bit():
    torch.manual_seed(0)
    network = net()
    before = digest_of(network)
    assert digest_of(network) == before
    with torch.no_grad():
        weight = network.get_parameter("3.weight")
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    assert digest_of(network) != before
    digests = {digest_of(Normalised(network, [mean], [sd])) for mean, sd in ((0.5, 0.5), (0.5, 0.25), (0.25, 0.5))}
    assert len(digests | {digest_of(network), digest_of(network.double())}) == 5
