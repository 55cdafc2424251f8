"""RobustBench's zoo, by a package of its shape with small networks: its front fails as the registry's does."""

import argparse
import dataclasses
import os
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from robusteval import downloads
from robusteval.classifier import Preprocessing
from robusteval.datasets import names
from robusteval.errors import UserError
from robusteval.models import zoo, zoo_files
from robusteval.models.robustbench import RobustBench
from robusteval.models.weights import digest_of

FRONT = "raise ImportError(\"No module named 'autoattack'\")\n"
ZOO = """
import enum
from collections import OrderedDict
import torch
from torch import nn

class Data(enum.Enum):
    cifar_10, cifar_100, imagenet = "cifar10", "cifar100", "imagenet"

class Threat(enum.Enum):
    Linf, L2, corruptions = "Linf", "L2", "corruptions"

def net(classes=10):
    print("made")
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 2, 3, 4), norm=nn.BatchNorm2d(2), flat=nn.Flatten(),
                                     fc=nn.LazyLinear(classes)))

def sized(side=32, classes=10):
    made = net(classes).eval()
    made(torch.zeros(1, 3, side, side))
    return made

class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mu", torch.full((1, 3, 1, 1), 0.5))
        self.inner = sized()
    def forward(self, x):
        return self.inner(x - self.mu)

class Normalise(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))
    def forward(self, x):
        return x - self.mean

def normalised():
    return nn.Sequential(OrderedDict(normalize=Normalise(), model=sized(224, 1000)))

class Ensemble(nn.Module):
    def __init__(self):
        super().__init__()
        self.models = nn.ModuleList([sized(), sized()])
    def forward(self, x):
        return sum(model(x) for model in self.models)

class Composite(nn.Module):
    def __init__(self):
        super().__init__()
        self.comp_model = nn.Module()
        self.comp_model.models = nn.ModuleList([sized(), sized()])
        self.comp_model.policy_net, self.comp_model.bn = nn.Linear(10, 1), nn.BatchNorm1d(1)
    def forward(self, x):
        first, second = (model(x) for model in self.comp_model.models)
        weight = self.comp_model.bn(self.comp_model.policy_net(first)).sigmoid()
        return weight * first + (1 - weight) * second

class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.std_model, self.rob_model = sized(), sized()
    def forward(self, x):
        return self.std_model(x) + self.rob_model(x)

one = {"model": sized, "gdrive_id": "one"}
linf = {"Sehwag2021Proxy_R18": one, "Andriushchenko2020Understanding": one,
        "Rice2020Overfitting": {"model": Shifted, "gdrive_id": "two"},
        "Chen2020Adversarial": {"model": Ensemble, "gdrive_id": ["a", "b"]},
        "Bai2023Improving_edm": {"model": Composite, "gdrive_id": ["a", "b", "c"]},
        "Bai2024MixedNUTS": {"model": Mixed, "gdrive_id": ["a", "b"]},
        "Newer2027Network": one}
def of(crop):
    return {"model": normalised, "gdrive_id": "three", "preprocessing": crop}
model_dicts = {
    Data.cifar_10: {Threat.Linf: linf, Threat.L2: {"Sehwag2021Proxy_R18": one}},
    Data.cifar_100: {Threat.Linf: {"Rice2020Overfitting": {"model": lambda: sized(32, 100), "gdrive_id": "four"}}},
    Data.imagenet: {Threat.Linf: {"Salman2020Do_R18": of("Res256Crop224"), "Wong2020Fast": of("Crop288"),
                                  "Singh2023Revisiting_ViT-S-ConvStem": of("BicubicRes256Crop224"),
                                  "Mo2022When_ViT-B": of("Res224"), "Salman2020Do_R50": of("Odd")}},
}
"""
CIFAR: dict[str, Any] = {"dataset": "cifar10", "threat": "linf"}


@pytest.fixture
def forget() -> Iterator[Callable[[], None]]:
    """What was imported of robustbench, and known of it, is of this test alone."""

    def clear() -> None:
        zoo.trouble.cache_clear()
        zoo._model_zoo.cache_clear()
        for name in [name for name in sys.modules if name.partition(".")[0] == "robustbench"]:
            del sys.modules[name]

    clear()
    yield clear
    clear()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]) -> Path:
    """A package robustbench of small networks on the path; returns its folder."""
    package = tmp_path / "site" / "robustbench"
    (package / "model_zoo").mkdir(parents=True)
    (package / "__init__.py").write_text(FRONT)
    (package / "model_zoo" / "__init__.py").write_text(ZOO)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo_files, "CACHE", str(tmp_path / "cache"))
    return package


def network(
    board: tuple[str, str] = ("cifar10", "Linf"), name: str = "Sehwag2021Proxy_R18", seed: int = 1
) -> nn.Module:
    torch.manual_seed(seed)
    made = zoo.build(zoo.recipe(*board, name)).eval()
    for value in made.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 1)
    return made


def lay(tmp_path: Path, content: object, file: str = "cifar10/Linf/Sehwag2021Proxy_R18.pt") -> Path:
    path = tmp_path / "weights" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def model(tmp_path: Path, name: str = "Sehwag2021Proxy_R18", **options: Any) -> RobustBench:
    return RobustBench(name=name, dir=str(tmp_path / "weights"), **{**CIFAR, **options})


# ---------------------------------------------------------------- the package


def test_the_networks_come_without_the_packages_front(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert zoo.trouble() is None
    assert "Newer2027Network" in zoo.names("cifar10", "Linf")
    assert zoo.names("cifar10", "corruptions") == []
    assert "robustbench" not in sys.modules  # whoever imports it meets the package as installed
    with pytest.raises(ImportError, match="autoattack"):
        import robustbench  # noqa: F401  # pyright: ignore[reportMissingImports]
    network()
    assert capsys.readouterr().out == ""


def test_one_that_is_already_imported_is_used_as_it_is(installed: Path) -> None:
    (installed / "__init__.py").write_text("mine = 1\n")
    import robustbench  # pyright: ignore[reportMissingImports]

    assert zoo.trouble() is None
    assert sys.modules["robustbench"] is robustbench
    assert robustbench.mine == 1


def test_without_it_one_sentence_names_the_command(monkeypatch: pytest.MonkeyPatch, forget: Callable) -> None:
    monkeypatch.setattr(zoo.library, "installed", lambda module: False)
    command = "pip install 'robusteval[robustbench]' && pip install --no-deps robustbench"
    for said in (RobustBench(name="Sehwag2021Proxy_R18", **CIFAR).missing(), zoo.trouble()):
        assert said == f"model=robustbench needs the package robustbench, which is not installed: {command}"
    with pytest.raises(UserError, match="robustbench, which is not installed"):
        RobustBench(name="Sehwag2021Proxy_R18", **CIFAR).load()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import geotorch_not_there_\n", r"fails to import \(No module named"),
        (
            "raise ModuleNotFoundError(\"No module named 'geotorch'\", name='geotorch')\n",
            r"geotorch too.*\[robustbench\]",
        ),
        ("raise AttributeError('timm has changed')\n", r"AttributeError: timm has changed.*--force-reinstall"),
    ],
)
def test_a_package_that_fails_is_told(installed: Path, line: str, said: str) -> None:
    (installed / "model_zoo" / "__init__.py").write_text(line)
    with pytest.raises(UserError, match=said) as raised:
        RobustBench(name="Sehwag2021Proxy_R18", **CIFAR).load()
    assert "\n" not in str(raised.value)


def test_the_copy_that_torchattacks_brings_is_refused(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = installed.parent / "torchattacks-3.5.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchattacks\nVersion: 3.5.1\n")
    (info / "RECORD").write_text("robustbench/__init__.py,sha256=x,1\n")
    assert "the old copy that torchattacks' wheel brings" in str(zoo.trouble())
    zoo.trouble.cache_clear()
    real = installed.parent / "robustbench-1.1.1.dist-info"
    real.mkdir()
    (real / "METADATA").write_text("Metadata-Version: 2.1\nName: robustbench\nVersion: 1.1.1\n")
    (real / "RECORD").write_text("robustbench/__init__.py,,\n")
    assert zoo.trouble() is None  # the real one was put over it
    (real / "RECORD").write_text("robustbench/__init__.py,sha256=AAAA,1\n")
    zoo.trouble.cache_clear()
    assert "pip install --force-reinstall --no-deps robustbench" in str(zoo.trouble())


# ---------------------------------------------------------------- names and boards


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "???"}, r"needs model\.name=NAME"),
        ({"name": "Wang2023Beter_WRN-28-10"}, r"did you mean 'Wang2023Better_WRN-28-10'\?"),
        ({"name": "Salman2020Do_R18"}, r"for imagenet \(linf\), not for cifar10; set dataset=imagenet"),
        ({"name": "Wang2023Better_WRN-28-10", "threat": "corruptions"}, r"set model\.threat=l2 or model\.threat=linf"),
        ({"name": "Wang2023Better_WRN-28-10", "threat": "unbounded"}, r"set model\.threat=l2 or model\.threat=linf"),
        ({"name": "Wang2023Better_WRN-28-10", "dataset": "arrays"}, r"model\.dataset=cifar10 \(cifar10, cifar100"),
    ],
)
def test_a_name_that_is_not_there_is_told(options: dict, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "installed", lambda: False)
    with pytest.raises(UserError, match=said):
        RobustBench(**{**CIFAR, **options})


def test_the_board_follows_the_run() -> None:
    def board(name: str, dataset: str, threat: str) -> tuple[str, str]:
        return RobustBench(name=name, dataset=dataset, threat=threat).board

    assert board("Sehwag2021Proxy_R18", "cifar10_samples", "l2") == ("cifar10", "L2")
    assert board("Salman2020Do_R18", "imagenet", "linf") == ("imagenet", "Linf")
    assert board("Andriushchenko2020Understanding", "cifar10", "unbounded") == ("cifar10", "Linf")  # the only one
    assert board("AlexNet", "imagenet", "corruptions") == ("imagenet", "corruptions")


def test_a_name_that_only_the_installed_zoo_knows(installed: Path, tmp_path: Path) -> None:
    made = network(name="Newer2027Network")
    lay(tmp_path, made.state_dict(), "cifar10/Linf/Newer2027Network.pt")
    assert model(tmp_path, "Newer2027Network").load().name == "Newer2027Network"
    with pytest.raises(UserError, match=r"is not in RobustBench's zoo"):
        model(tmp_path, "Newer2028Network")
    with pytest.raises(UserError, match=r"installed robustbench of unknown version does not have it .* --upgrade"):
        model(tmp_path, "Wang2023Better_WRN-28-10").load()


# ---------------------------------------------------------------- weights


def renamed(state: dict, prefix: str) -> dict:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: renamed(state, "module."),
        lambda state: {"epoch": 3, "state_dict": renamed(state, "module.model.")},
        lambda state: {"last": state, "best": {name: -value for name, value in state.items()}},
        lambda state: {
            "state_dict": renamed(state, "model."),
            "acc": np.float64(0.5),
            "args": argparse.Namespace(lr=1),
        },
        lambda state: {"net": state, "optimizer": {"lr": 0.1}},
        lambda state: {**state, "conv1.scores": torch.zeros(1)},  # of a pruned network, which RobustBench drops too
    ],
)
def test_every_form_of_file_gives_the_same_network(installed: Path, tmp_path: Path, wrap: Callable) -> None:
    made = network()
    lay(tmp_path, wrap(dict(made.state_dict())))
    loaded = model(tmp_path).load()
    assert loaded.digest == digest_of(made)
    assert (loaded.classes, loaded.input_size, loaded.class_names) == (10, (3, 32, 32), names.CIFAR10)
    assert (loaded.name, loaded.source) == ("Sehwag2021Proxy_R18", "robustbench cifar10/Linf")
    assert loaded.preprocessing == Preprocessing()
    assert not loaded.module.training


def test_a_normalisation_that_the_file_lacks_is_the_architectures(installed: Path, tmp_path: Path) -> None:
    made = network(name="Rice2020Overfitting")
    state = dict(made.state_dict())
    lay(tmp_path, state, "cifar10/Linf/Rice2020Overfitting.pt")
    assert model(tmp_path, "Rice2020Overfitting").load().digest == digest_of(made)
    del state["mu"]
    lay(tmp_path, state, "cifar10/Linf/Rice2020Overfitting.pt")
    loaded = model(tmp_path, "Rice2020Overfitting").load().module
    assert loaded.get_buffer("mu").flatten().tolist() == [0.5] * 3


@pytest.mark.parametrize("name", ["fc.weight", "norm.running_mean"])
def test_any_other_name_that_is_missing_is_refused(installed: Path, tmp_path: Path, name: str) -> None:
    state = dict(network().state_dict())
    del state[name]
    path = lay(tmp_path, renamed(state, "module."))
    with pytest.raises(UserError, match=rf"{path.name} does not fit the network: it lacks .*{name}"):
        model(tmp_path).load()
    state[name] = torch.zeros(7)
    lay(tmp_path, state)
    with pytest.raises(UserError, match=rf"'{name}' is \[7\] where the network has"):
        model(tmp_path).load()


def test_imagenets_files_lack_the_wrapper_and_the_normalisation(installed: Path, tmp_path: Path) -> None:
    board = ("imagenet", "Linf")
    made = network(board, "Salman2020Do_R18")
    made.get_buffer("normalize.mean").fill_(0.5)
    state = {n.removeprefix("model."): v for n, v in made.state_dict().items() if not n.startswith("normalize")}
    lay(tmp_path, {"state_dict": renamed(state, "module.")}, "imagenet/Linf/Salman2020Do_R18.pt")
    loaded = model(tmp_path, "Salman2020Do_R18", dataset="imagenet").load()
    assert loaded.digest == digest_of(made)
    assert loaded.preprocessing == Preprocessing(resize=256, crop=(224, 224))
    assert (loaded.classes, loaded.input_size) == (1000, (3, 224, 224))


@pytest.mark.parametrize(
    ("name", "due"),
    [
        ("Wong2020Fast", Preprocessing(crop=(288, 288))),
        ("Singh2023Revisiting_ViT-S-ConvStem", Preprocessing(resize=256, crop=(224, 224), interpolation="bicubic")),
        ("Mo2022When_ViT-B", Preprocessing(resize=(224, 224))),
    ],
)
def test_pictures_are_prepared_as_the_zoo_says(installed: Path, name: str, due: Preprocessing) -> None:
    options = RobustBench(name=name, dataset="imagenet", threat="linf")
    assert options._preprocessing(zoo.recipe("imagenet", "Linf", name)) == due


def test_a_way_of_preparing_pictures_that_is_not_known_is_refused(installed: Path, tmp_path: Path) -> None:
    state = network(("imagenet", "Linf"), "Salman2020Do_R50").state_dict()
    lay(tmp_path, state, "imagenet/Linf/Salman2020Do_R50.pt")
    with pytest.raises(UserError, match="by 'Odd', which is not known here"):
        model(tmp_path, "Salman2020Do_R50", dataset="imagenet").load()


def test_ensembles_are_filled_part_by_part(installed: Path, tmp_path: Path) -> None:
    for name in ("Chen2020Adversarial", "Bai2024MixedNUTS", "Bai2023Improving_edm"):
        made = network(name=name)
        if name == "Bai2023Improving_edm":
            mixed: Any = made.comp_model
            states = [*(member.state_dict() for member in mixed.models)]
            states.append({"model": renamed(mixed.policy_net.state_dict(), "module."), "bn": mixed.bn.state_dict()})
        else:
            members = made.models if name == "Chen2020Adversarial" else [made.std_model, made.rob_model]
            states = [member.state_dict() for member in members]  # pyright: ignore[reportGeneralTypeIssues, reportAttributeAccessIssue]
        for number, state in enumerate(states):
            lay(tmp_path, state, f"cifar10/Linf/{name}.pt_m{number}.pt")
        assert model(tmp_path, name).load().digest == digest_of(made), name


class Harm:
    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, ("touch harmed",)


def test_nothing_in_a_file_runs(installed: Path, tmp_path: Path) -> None:
    lay(tmp_path, {"state_dict": network().state_dict(), "args": Harm()})
    with pytest.raises(UserError, match="holds more than weights"):
        model(tmp_path).load()
    assert not Path("harmed").exists()


def test_the_standard_resnet_needs_nothing_of_robustbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "trouble", lambda: pytest.fail("robustbench was looked for"))
    options = model(tmp_path, "Standard_R50", dataset="imagenet")
    assert options._standard().weights == "IMAGENET1K_V1"
    lay(tmp_path, {}, "imagenet/Linf/Standard_R50.pt")
    assert options._standard().weights.endswith("imagenet/Linf/Standard_R50.pt")
    assert options.missing() is None


# ---------------------------------------------------------------- files


class Drive(BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Drive]]:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(downloads, "PAUSE", 0.01)
    with ThreadingHTTPServer(("127.0.0.1", 0), Drive) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(zoo_files, "DRIVE", f"http://127.0.0.1:{running.server_address[1]}/{{}}")
        yield Drive
        running.shutdown()
        thread.join()


def test_the_users_folder_then_theirs_then_the_cache_then_a_download(
    installed: Path, tmp_path: Path, drive: type[Drive]
) -> None:
    made = network()
    drive.body = lay(tmp_path, made.state_dict()).read_bytes()
    options = dataclasses.replace(model(tmp_path), dir=None)
    assert "models/cifar10/Linf/Sehwag2021Proxy_R18.pt or " in str(options.missing())
    assert options.load().digest == digest_of(made)
    cached = tmp_path / "cache" / "cifar10" / "Linf" / "Sehwag2021Proxy_R18.pt"
    assert cached.is_file()
    assert options.missing() is None
    other = network(seed=2)
    theirs = tmp_path / "models" / "cifar10" / "Linf" / "Sehwag2021Proxy_R18.pt"
    theirs.parent.mkdir(parents=True)
    torch.save(other.state_dict(), theirs)
    assert options.load().digest == digest_of(other)
    assert model(tmp_path).load().digest == digest_of(made)  # model.dir, and nothing else


def test_a_page_of_google_drive_is_told_in_a_sentence(installed: Path, tmp_path: Path, drive: type[Drive]) -> None:
    drive.body = b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>"
    options = model(tmp_path)
    with pytest.raises(UserError, match=r"the server sent an HTML page .* get it by hand and put it at .*R18\.pt"):
        options.load()
    folder = tmp_path / "weights" / "cifar10" / "Linf"
    assert list(folder.iterdir()) == []
    (folder / "Sehwag2021Proxy_R18.pt").write_bytes(drive.body)  # as RobustBench itself would have left it
    with pytest.raises(UserError, match=r"R18\.pt should hold weights, but is an HTML page") as raised:
        options.load()
    assert "\n" not in str(raised.value)


def test_a_truncated_file_is_told(installed: Path, tmp_path: Path) -> None:
    path = lay(tmp_path, network().state_dict())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="is truncated"):
        model(tmp_path).load()
