"""Wrong files through the whole command line: exit code 2, one sentence that names the key or the file, nothing run.

Every case starts from a network, weights and images that work together, and spoils one thing.
"""

import io
import os
import pickle
import pickletools
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data.imagenet_info import ImageNetInfo
from torch import nn

GREY = np.random.default_rng(0).integers(0, 256, (12, 1, 8, 8), dtype=np.uint8)
LABELS = np.arange(12) % 3
REAL = (GREY / 255).astype(np.float32)
NET = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
"""
HTML = b"<!DOCTYPE html>\n<html><body>Quota exceeded</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with a network, its weights and its images."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "net.py").write_text(NET)
    np.savez(folder / "images.npz", images=GREY, labels=LABELS)
    save_file(net().state_dict(), folder / "w.safetensors")
    torch.save(net().state_dict(), folder / "w.pt")
    return folder


@pytest.fixture
def run(answer: Callable, own: Path, tmp_path: Path) -> Callable:
    def ask(*overrides: str) -> Any:
        base = {
            "model": "checkpoint",
            "model.entry": f"{own}/net.py:build",
            "model.weights": f"{own}/w.pt",
            "model.input_size": "[1,8,8]",
            "dataset": "arrays",
            "dataset.path": f"{own}/images.npz",
            "attack": "noise",
            "attack.queries": "1",
            "logger": "none",
            "runs.dir": str(tmp_path / "runs"),
        }
        given = dict(override.split("=", 1) for override in overrides)
        return answer(*(f"{key}={value}" for key, value in (base | given).items() if value != "-"))

    return ask


def refused(given: Any, *names: object) -> None:
    """Assert exit code 2 and one line on standard error that names every one of ``names``."""
    assert given.code == 2, given
    assert given.out == ""
    said = given.err.splitlines()[-1]
    assert said.startswith("robusteval: ")
    assert "Traceback" not in given.err
    for name in names:
        assert str(name) in said


def test_what_is_spoilt_below_works_before(run: Callable, own: Path) -> None:
    given = run()
    assert given.code == 0, given
    assert Path(given.out.splitlines()[-1], "results.json").is_file()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        pytest.param({"images": GREY.reshape(12, 64), "labels": LABELS}, "[12, 64]", id="flat"),
        pytest.param({"images": GREY[:, 0], "labels": LABELS}, "channel", id="no channel"),
        pytest.param({"images": GREY.repeat(3, 1), "labels": LABELS}, "3 channels", id="channels"),
        pytest.param({"images": GREY[..., :7, :], "labels": LABELS}, "7x8", id="size"),
        pytest.param({"images": (REAL - 0.5) / 0.25, "labels": LABELS}, "normalised", id="normalised"),
        pytest.param({"images": GREY.astype(np.float32), "labels": LABELS}, "255", id="0..255"),
        pytest.param(
            {"images": np.where(GREY[3, 0, 2, 2] == GREY, np.nan, REAL), "labels": LABELS}, "finite", id="nan"
        ),
        pytest.param({"images": np.where(GREY > 250, np.inf, REAL), "labels": LABELS}, "finite", id="inf"),
        pytest.param({"images": GREY.astype(np.int64), "labels": LABELS}, "int64", id="int64"),
        pytest.param({"images": np.zeros_like(GREY) + 7, "labels": LABELS}, "every pixel", id="blank"),
        pytest.param({"images": GREY[:0], "labels": LABELS[:0]}, "no images", id="none"),
        pytest.param({"images": GREY, "labels": LABELS + 1}, "count from 1", id="from 1"),
        pytest.param({"images": GREY, "labels": LABELS + 100}, "102", id="out of range"),
        pytest.param({"images": GREY, "labels": LABELS - 1}, "-1", id="negative"),
        pytest.param({"images": GREY, "labels": LABELS.astype(float)}, "float64", id="float labels"),
        pytest.param({"images": GREY, "labels": np.eye(3)[LABELS]}, "argmax", id="one-hot"),
        pytest.param({"images": GREY, "labels": LABELS[:-1]}, "11 labels", id="lengths"),
        pytest.param({"images": GREY}, "labels", id="no labels"),
        pytest.param({"x": GREY, "y": LABELS}, "images=x", id="names"),
        pytest.param({"images": np.array([{}, {}]), "labels": LABELS[:2]}, "Python objects", id="objects"),
    ],
)
def test_wrong_arrays(run: Callable, own: Path, arrays: dict[str, Any], said: str) -> None:
    np.savez(own / "images.npz", **arrays)
    refused(run(), "dataset.path", own / "images.npz", said)


def test_a_wrong_image_that_only_a_later_chunk_holds(run: Callable, own: Path) -> None:
    many = np.tile(REAL, (3, 1, 1, 1))
    many[-1, 0, 0, 0] = np.nan
    np.savez(own / "images.npz", images=many, labels=np.tile(LABELS, 3))
    refused(run("engine.chunk=16", "engine.slots=16"), "dataset.path", "finite")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("own.npz", HTML, "HTML"),
        ("own.npz", LFS, "LFS"),
        ("own.npz", b"", "empty"),
        ("own.npz", b"PK\x03\x04 not really", "damaged"),
        ("own.safetensors", HTML, "HTML"),
        ("own.safetensors", b"\xff" * 64, "damaged"),
        ("own.csv", b"1,2,3", "neither .npz nor .safetensors"),
        ("own.npy", b"\x93NUMPY", "neither .npz nor .safetensors"),
    ],
)
def test_what_is_no_array_file(run: Callable, own: Path, name: str, content: bytes, said: str) -> None:
    (own / name).write_bytes(content)
    refused(run(f"dataset.path={own / name}"), "dataset.path", name, said)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("name", ["images.npz", "images.safetensors", "w.pt", "legacy.pt", "w.safetensors"])
def test_truncated_files(run: Callable, own: Path, name: str, share: float) -> None:
    save_file({"images": torch.from_numpy(GREY), "labels": torch.from_numpy(LABELS)}, own / "images.safetensors")
    torch.save(net().state_dict(), own / "legacy.pt", _use_new_zipfile_serialization=False)
    whole = (own / name).read_bytes()
    (own / name).write_bytes(whole[: int(len(whole) * share)])
    key = "dataset.path" if name.startswith("images") else "model.weights"
    refused(run(f"{key}={own / name}"), own / name)


def test_no_such_file_a_folder_and_no_permission(run: Callable, own: Path) -> None:
    (own / "folder.npz").mkdir()
    (own / "folder.pt").mkdir()
    refused(run(f"dataset.path={own}/nothing.npz"), "dataset.path", "nothing.npz")
    refused(run(f"dataset.path={own}/folder.npz"), "dataset.path", "folder.npz")
    refused(run("dataset.path=null"), "dataset.path")
    refused(run(f"model.weights={own}/nothing.pt"), "model.weights", "nothing.pt")
    refused(run(f"model.weights={own}/folder.pt"), "model.weights", "folder.pt")
    refused(run("model.weights=null"), "model.weights")
    refused(run(f"model.entry={own}/nothing.py:build"), "model.entry", "nothing.py")
    refused(run(f"dataset.path={'x' * 300}.npz"), "xxx.npz")
    refused(run(f"model.weights={'x' * 300}.pt"), "xxx.pt")
    for name, key in (("images.npz", "dataset.path"), ("w.pt", "model.weights"), ("net.py", "model.entry")):
        (own / name).chmod(0)
        if not os.access(own / name, os.R_OK):  # the superuser may read all
            refused(run(), key.partition(".")[0] and name)
        (own / name).chmod(0o644)


# ---------------------------------------------------------------- pickles that run code


class Payload:
    """Unpickling this calls a function."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call[0], tuple(self.call[1:])


def payloads(canary: Path) -> dict[str, Any]:
    """Return objects whose unpickling makes the canary file, each another way."""
    code = f"open({str(canary)!r}, 'w').close()"
    return {
        "system": Payload(os.system, f"touch {canary}"),
        "popen": Payload(subprocess.Popen, ["touch", str(canary)]),
        "exec": Payload(exec, code),
        "eval": Payload(eval, code),
        "open": Payload(os.open, str(canary), os.O_CREAT | os.O_WRONLY),
        "getattr": Payload(getattr, Payload(__import__, "os"), "getcwd"),
        "nested": {"state_dict": {"weight": torch.zeros(2), "extra": [Payload(os.mkdir, str(canary))]}},
    }


PAYLOADS = ("system", "popen", "exec", "eval", "open", "getattr", "nested")


def test_the_payloads_would_work(tmp_path: Path) -> None:
    for name, payload in payloads(tmp_path / "proof").items():
        raw = pickle.dumps(payload, protocol=2)
        assert any(op.name == "REDUCE" for op, _, _ in pickletools.genops(raw))
        if name in ("exec", "open"):
            pickle.loads(raw)
            assert (tmp_path / "proof").exists()
            (tmp_path / "proof").unlink()


FORMS = ("zip .pt", "legacy .pt", "plain .pt", "npz", "npz of one .npy", "npy as npz", "plain .npz")


@pytest.mark.parametrize(
    ("name", "form"),
    [
        # Every payload in one form and every form with one payload; the rest takes as long as all other files.
        pytest.param(name, form, marks=[] if "system" in name or "zip" in form else pytest.mark.slow)
        for name in PAYLOADS
        for form in FORMS
    ],
)
def test_no_pickle_ever_runs(run: Callable, own: Path, tmp_path: Path, name: str, form: str) -> None:
    canary = tmp_path / "canary"
    evil = payloads(canary)[name]
    path = own / ("evil.pt" if form.endswith(".pt") else "evil.npz")
    objects = np.empty(1, dtype=object)
    objects[0] = evil
    if form.startswith("zip"):
        torch.save(evil, path)
    elif form.startswith("legacy"):
        torch.save(evil, path, _use_new_zipfile_serialization=False)
    elif form.startswith("plain"):
        path.write_bytes(pickle.dumps(evil, protocol=2))
    elif form == "npz":
        np.savez(path, images=GREY, labels=objects)
    elif form == "npz of one .npy":
        raw = io.BytesIO()
        np.save(raw, objects, allow_pickle=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", raw.getvalue())
            archive.writestr("labels.npy", raw.getvalue())
    else:
        with path.open("wb") as file:
            np.save(file, objects, allow_pickle=True)
    refused(run(f"{'dataset.path' if path.suffix == '.npz' else 'model.weights'}={path}"), path)
    assert not canary.exists()


def test_the_environment_cannot_let_pickles_run(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    refused(run(), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize(
    "content", [HTML, LFS, b"", b"weights, I promise", b"\x00" * 4096, b"PK\x05\x06" + b"\x00" * 18]
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_no_file_of_weights(run: Callable, own: Path, suffix: str, content: bytes) -> None:
    (own / f"own{suffix}").write_bytes(content)
    refused(run(f"model.weights={own}/own{suffix}"), f"own{suffix}")


def spoilt(**change: Any) -> dict[str, Any]:
    return {**net().state_dict(), **change}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(spoilt(**{"1.bias": torch.tensor([0.0, torch.nan, 0.0])}), "NaN", id="nan"),
        pytest.param(spoilt(**{"1.bias": torch.full((3,), torch.inf)}), "infinite", id="inf"),
        pytest.param(spoilt(**{"1.weight": torch.zeros(5, 64), "1.bias": torch.zeros(5)}), "[5, 64]", id="5 classes"),
        pytest.param(spoilt(**{"1.weight": torch.zeros(3, 65)}), "[3, 65]", id="other architecture"),
        pytest.param({"1.weight": torch.zeros(3, 64)}, "1.bias", id="a name lacks"),
        pytest.param(
            {f"module.{name}": value for name, value in net().state_dict().items()}, "model.prefix=module.", id="prefix"
        ),
        pytest.param({"a": net().state_dict(), "b": net().state_dict()}, "model.key", id="two"),
        pytest.param({"epoch": 3}, "no state dict", id="none"),
        pytest.param(torch.zeros(3), "no state dict", id="tensor"),
        pytest.param(net(), "more than weights", id="whole network"),
    ],
)
def test_weights_that_do_not_fit(run: Callable, own: Path, content: Any, said: str) -> None:
    torch.save(content, own / "other.pt")
    refused(run(f"model.weights={own}/other.pt"), "other.pt", said)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.prefix=nothing."], "model.prefix"),
        (["model.key=nothing"], "model.key"),
        (["model.classes=5"], "model.classes"),
        (["model.class_names=[a,b]"], "class names"),
        (["model.input_size=[1,9,9]"], "model.input_size"),
        (["model.entry=-", "model.name=resnet5"], "model.name"),
        (["model.entry=-", "model.name=resnet18"], "w.pt"),
        (["model.entry=-"], "model.name"),
        (["model.entry=-", "model.name=tensorflow/resnet18"], "model.name"),
        (["model.entry=net.py"], "model.entry"),
        (["dataset.n=13"], "dataset.n"),
        (["threat.goal=top5"], "threat.goal"),
        (["runtime.device=cuda:99"], "runtime.device"),
        (["attack=pgd", "attack.queries=-", "attack.loss=targeted_dlr", "attack.steps=1"], "attack=pgd"),
    ],
)
def test_options_that_do_not_fit_the_files(run: Callable, overrides: list[str], said: str) -> None:
    given = run(*overrides)
    refused(given, said)


# ---------------------------------------------------------------- the user's code


@pytest.mark.parametrize(
    ("code", "said"),
    [
        pytest.param("1 / 0", "ZeroDivisionError", id="raises on import"),
        pytest.param("def build(:", "SyntaxError", id="no Python"),
        pytest.param("import no_such_package_anywhere", "no_such_package_anywhere", id="import fails"),
        pytest.param("raise SystemExit(0)", "SystemExit", id="exits"),
        pytest.param("def bild(): pass", "did you mean 'bild'", id="no such function"),
        pytest.param("build = 3", "no function 'build'", id="no function"),
        pytest.param("def build(): raise KeyError('weights')", "KeyError", id="raises"),
        pytest.param("def build(n): pass", "TypeError", id="wants an argument"),
        pytest.param("def build(): return 'net'", "returned a str", id="no network"),
        pytest.param("def build(): return None", "returned a NoneType", id="nothing"),
        pytest.param(
            "from torch import nn\nbuild = lambda: nn.Conv2d(1, 3, 3)", "shape", id="logits of four dimensions"
        ),
        pytest.param("from torch import nn\nbuild = lambda: nn.Flatten(0)", "shape", id="logits of one dimension"),
        pytest.param(
            "from torch import nn\nbuild = lambda: nn.Linear(9, 3)", "model.input_size", id="does not take them"
        ),
        pytest.param(
            "from torch import nn\nclass Net(nn.Module):\n  def forward(self, x): return (x, x)\nbuild = Net",
            "tuple",
            id="answers with a tuple",
        ),
        pytest.param(
            "from torch import nn\nclass Net(nn.Module):\n  def forward(self, x): return {'logits': x}\nbuild = Net",
            "dict",
            id="answers with a dict",
        ),
        pytest.param(
            "from torch import nn\nclass Net(nn.Module):\n  def forward(self, x): raise KeyError('x')\nbuild = Net",
            "KeyError",
            id="forward raises",
        ),
        pytest.param(
            "from torch import nn\nbuild = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 1))",
            "class",
            id="one logit",
        ),
    ],
)
@pytest.mark.parametrize("sized", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_users_code_is_wrong(run: Callable, own: Path, code: str, said: str, sized: bool) -> None:
    (own / "net.py").write_text(code)
    options = () if sized else ("model.input_size=null", "model.classes=3")
    given = run("model=python", "model.weights=null", *options)
    refused(given, *([said] if sized else []))


# ---------------------------------------------------------------- pictures


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)


def truncate(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


def of_pictures(run: Callable, own: Path, dataset: str) -> Any:
    """Evaluate a network for pictures of 8x8 in colour on the folder of pictures."""
    (own / "net.py").write_text(NET.replace("64", "192"))
    network = ("model=python", "model.weights=null", "model.input_size=[3,8,8]", "model.resize=8", "model.crop=[8,8]")
    return run(*network, f"dataset={dataset}", "dataset.path=-", f"dataset.root={own}/pictures")


FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no such folder": (lambda root: None, ""),
    "a file": (lambda root: root.write_bytes(b"x"), ""),
    "empty": (lambda root: root.mkdir(), ""),
    "no pictures": (lambda root: (root / "cat").mkdir(parents=True), ""),
    "splits": (lambda root: picture(root / "train" / "cat" / "0.png"), "train"),
    "truncated": (lambda root: (picture(root / "cat" / "0.png"), truncate(root / "cat" / "0.png")), "0.png"),
    "HTML": (lambda root: (picture(root / "cat" / "0.png"), (root / "cat" / "0.png").write_bytes(HTML)), "HTML"),
    "too many classes": (lambda root: [picture(root / name / "0.png") for name in "abcde"], "classes"),
    "numbers with a gap": (lambda root: [picture(root / name / "0.png") for name in ("0", "2", "10")], "number"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_wrong_folders_of_pictures(run: Callable, own: Path, case: str) -> None:
    make, said = FOLDERS[case]
    make(own / "pictures")
    refused(of_pictures(run, own, "folder"), "pictures", said)


WNID = ImageNetInfo().label_names()[7]
IMAGENETS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no such folder": (lambda root: None, ""),
    "a file": (lambda root: root.write_bytes(b"x"), ""),
    "empty": (lambda root: root.mkdir(), "no ImageNet validation pictures"),
    "no pictures": (lambda root: (root / "val" / WNID).mkdir(parents=True), "no pictures"),
    "foreign class": (lambda root: picture(root / "val" / "n99999999" / "0.JPEG"), "n99999999"),
    "no labels": (lambda root: picture(root / "ILSVRC2012_val_00000001.JPEG"), "labels"),
    "truncated": (lambda root: (picture(root / WNID / "0.JPEG"), truncate(root / WNID / "0.JPEG")), "0.JPEG"),
    "HTML": (lambda root: (picture(root / WNID / "0.JPEG"), (root / WNID / "0.JPEG").write_bytes(HTML)), "0.JPEG"),
    "another network": (lambda root: picture(root / WNID / "0.JPEG"), "3 classes"),
}


@pytest.mark.parametrize("case", IMAGENETS)
def test_wrong_folders_of_imagenet(run: Callable, own: Path, case: str) -> None:
    make, said = IMAGENETS[case]
    make(own / "pictures")
    refused(of_pictures(run, own, "imagenet"), "pictures", said)


# ---------------------------------------------------------------- where the runs go


def test_a_folder_of_runs_that_cannot_be(run: Callable, own: Path) -> None:
    for place in (own / "w.pt", own / "w.pt" / "runs", "/proc/nowhere/runs", "x" * 300):
        given = run(f"runs.dir={place}")
        assert given.code in (1, 2)
        assert given.out == ""
        assert given.err.count("\n") == 1
        assert str(place)[:13] in given.err
