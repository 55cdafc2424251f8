"""Forms of the model for the search: the same function in fewer operations, and never of a model it would change."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robusteval.classifier import Normalised
from robusteval.engine import oracle
from robusteval.engine.passes import Passes, frozen
from robusteval.errors import UserError


class Residual(nn.Module):
    """Two convolutions with BatchNorm, one of them used twice, and a BatchNorm that follows no convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.again, self.twice = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.lone, self.head = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = x + torch.relu(self.twice(self.again(x)))
        x = torch.relu(self.twice(self.again(x)))
        return self.head(self.lone(x).mean((2, 3)))


class Strided(Residual):
    """The same with a first convolution that strides."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, stride=2, padding=1, bias=False)


def trained(module: nn.Module) -> nn.Module:
    """Give weights and running statistics some values."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    for name, values in module.named_buffers():
        if values.is_floating_point() and "running" in name:
            values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
    return module.eval()


IMAGES = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.zeros(20, dtype=torch.long)


def test_what_folds_is_folded_and_answers_alike() -> None:
    model = trained(Normalised(Residual(), [0.4], [0.3]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with frozen(model):
        folded = oracle.build(model, "folded", "float32")
        inner = folded.get_submodule("network")
        assert isinstance(inner.norm, nn.Identity)
        assert "first.bias" in dict(inner.named_parameters())
        assert isinstance(inner.twice, nn.BatchNorm2d), "its convolution serves twice"
        assert isinstance(inner.lone, nn.BatchNorm2d)
        torch.testing.assert_close(folded(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-5)
        assert not torch.equal(folded(IMAGES), model(IMAGES)), "or nothing was done"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert isinstance(model.get_submodule("network.norm"), nn.BatchNorm2d)


@pytest.mark.parametrize("form", oracle.FORMS)
def test_every_form_gives_the_models_gradients(form: Any) -> None:
    from robusteval.attacks.base import Query

    model = trained(Strided(3))
    query = Query(points=IMAGES.expand(-1, 3, -1, -1), loss=lambda z: z[:, 1] ** 2)
    with frozen(model):
        due = Passes(module=model, batch=32).ask(query)
        came = Passes(module=oracle.build(model, form, "float32"), batch=32).ask(query)
    torch.testing.assert_close(came.slope, due.slope, rtol=1e-4, atol=1e-5)
    assert came.slope.is_contiguous()


def test_bfloat16_is_coarse_and_its_normalisation_is_not() -> None:
    seen: list[Tensor] = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return self.head(x.flatten(1))

    model = trained(Normalised(Watched(), [0.5], [0.25]))
    with frozen(model):
        lowered = oracle.build(model, "given", "bfloat16")
        logits = lowered(IMAGES)
        assert logits.dtype == torch.float32
        assert seen[-1].dtype == torch.bfloat16
        assert torch.equal(seen[-1], ((IMAGES - 0.5) / 0.25).bfloat16())
        difference = (logits - model(IMAGES)).abs().max()
    assert 1e-5 < float(difference) < 0.5
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


class InOrder(nn.Module):
    """Runs with its channels in order only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).view(len(x), -1))


class Peculiar(nn.Module):
    """Answers otherwise where channels lie last, as what reads memory without a look at its order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        return self.head(maps.as_strided((len(x), 4, 64), (256, 64, 1)).mean(2))


@pytest.mark.parametrize(
    ("device", "network", "form", "ordered"),
    [
        ("cpu", Residual, "folded", True),
        ("cpu", InOrder, "given", False),
        ("cpu", Peculiar, "given", False),
        ("cuda", Residual, "folded", False),
    ],
)
def test_bfloat16_has_channels_last_where_the_device_wants_them(
    device: str, network: Any, form: Any, ordered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oracle, "_WANT_CHANNELS_LAST", (device,))
    model = trained(network())
    with frozen(model):
        passes = Passes(module=model, batch=16)
        lowered = oracle.lowered(passes, form, IMAGES, gradients=True)
        convolutions = [part for part in lowered.modules() if isinstance(part, nn.Conv2d) and part.in_channels > 1]
        kept = [part.weight.is_contiguous(memory_format=torch.channels_last) for part in convolutions]
        assert all(kept) == (ordered or not convolutions)
        assert any(isinstance(part, oracle._ChannelsLast) for part in lowered.modules()) == ordered
        plain = oracle.build(model, form, "bfloat16")(IMAGES)
        assert float((lowered(IMAGES) - plain).detach().abs().max()) < 0.05 * float(plain.detach().abs().max())


class Branching(nn.Module):
    """Its graph cannot be read: what it does depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Residual()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) if x.sum() > 0 else -self.net(x)


class Uncopyable(Residual):
    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        raise TypeError("no copies of this")


class Forgetful(Residual):
    """Answers otherwise as a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.copied = False

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        other = Forgetful()
        other.load_state_dict(self.state_dict())
        other.copied = True
        return other.eval()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + int(self.copied)


class Flat(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 3))


@pytest.mark.parametrize(
    ("network", "why"),
    [(Branching, "graph"), (Uncopyable, "copied"), (Forgetful, "answers otherwise"), (Flat, "no BatchNorm")],
)  # fmt: skip
def test_a_model_that_cannot_be_folded_stays_as_it_is(network: Any, why: str) -> None:
    model = trained(network())
    passes = Passes(module=model, batch=32)
    with frozen(model):
        choice = oracle.choose(passes, IMAGES, LABELS, "rule", gradients=True)
        assert choice.form == "given"
        assert why in choice.because
        with pytest.raises(UserError, match=why):
            oracle.choose(passes, IMAGES, LABELS, "folded", gradients=True)


class Viewing(nn.Sequential):
    """Views what lies in memory channel by channel, so that another order fails."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(256, 3))

    def forward(self, input: Tensor) -> Tensor:
        features = self[1](self[0](input))
        return self[2](features.view(input.shape[0], -1))


class Deep(nn.Sequential):
    """Convolves in three dimensions."""

    def __init__(self) -> None:
        super().__init__(
            nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 2, 3, padding=1), nn.BatchNorm3d(2), nn.Flatten(), nn.Linear(384, 3)
        )


class Rigid(torch.autograd.Function):
    """Views the gradient, or where it may not, answers it for memory in another order than it has."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, silent: bool) -> Tensor:
        ctx.silent = silent
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (g,) = grads
        if ctx.silent:
            return torch.as_strided(g, g.shape, torch.empty(g.shape).stride()), None
        return g.view(len(g), -1).view(g.shape), None


class Backward(nn.Module):
    """Its backward pass takes the order of memory for granted: loudly, or silently."""

    def __init__(self, silent: bool) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)
        self.silent = silent

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(Rigid.apply(self.norm(self.first(x)), self.silent)).mean((2, 3)) ** 2)


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (Viewing, "does not run in the form"),
        (Deep, "five dimensions"),
        (lambda: Backward(silent=False), "does not run in the form"),
        (lambda: Backward(silent=True), "other gradients"),
    ],
)
def test_where_channels_cannot_come_last_batchnorm_still_folds(network: Any, why: str) -> None:
    model, images = trained(network()), IMAGES.expand(-1, 3, -1, -1)
    passes = Passes(module=model, batch=32)
    with frozen(model):
        assert oracle.choose(passes, images, LABELS, "rule", gradients=True).form == "folded"
        with pytest.raises(UserError, match=why):
            oracle.choose(passes, images, LABELS, "channels_last", gradients=True)


def test_the_rule_takes_the_stem_where_there_is_one() -> None:
    strided = nn.Conv2d(1, 4, 3, stride=2, padding=1)
    networks = {
        "stem": nn.Sequential(strided, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)),
        "folded_channels_last_stem": nn.Sequential(strided, nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3)),
    }
    for form, network in networks.items():
        model = trained(network)
        with frozen(model):
            choice = oracle.choose(Passes(module=model, batch=32), IMAGES, LABELS, "rule", gradients=True)
        assert choice.form == form


def test_the_rule_goes_by_where_the_network_is() -> None:
    assert oracle.rule(Strided()) == ("folded_channels_last_stem", "folded_stem", "stem")
    assert oracle.rule(Residual()) == ("folded_channels_last", "folded")
    assert oracle.rule(Strided().to("meta")) == ("folded",), "as on a GPU, wherever the images are"


def test_the_rule_knows_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "timed", None)
    model = trained(Residual())
    with frozen(model):
        choice = oracle.choose(Passes(module=model, batch=32), IMAGES, LABELS, "rule", gradients=True)
    assert choice.form == "folded_channels_last"


def test_hooks_are_not_set_off_by_a_copy() -> None:
    model = trained(Residual())
    model.get_submodule("first").register_forward_hook(lambda *_: None)
    with frozen(model):
        assert "hooks" in oracle.choose(Passes(module=model, batch=32), IMAGES, LABELS, "rule", gradients=True).because


def test_the_clock_chooses_among_forms_that_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained(Residual())
    passes = Passes(module=model, batch=32)
    with frozen(model):
        rows = oracle.timed(
            passes, [oracle.Choice(form="given", difference=0, because="")], IMAGES, LABELS, gradients=True, rounds=2
        )
        assert rows[0][1] > 0
        speeds = {"given": 3.0, "folded": 2.0, "channels_last": 1.0, "folded_channels_last": 4.0}
        monkeypatch.setattr(oracle, "timed", lambda passes, choices, *_, **__: [(c, speeds[c.form]) for c in choices])
        assert oracle.choose(passes, IMAGES, LABELS, "auto", gradients=True).form == "channels_last"


NETWORK = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4))
    nn.init.normal_(net[4].weight, std=0.2)
    return net
"""


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    import numpy as np

    (tmp_path / "net.py").write_text(NETWORK)
    scope: dict[str, Any] = {}
    exec(NETWORK, scope)
    pixels = np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32)
    labels = scope["build"]().eval()(torch.from_numpy(pixels)).argmax(1).numpy()
    np.savez(tmp_path / "images.npz", images=pixels, labels=labels)
    return [
        "model=python", f"model.entry={tmp_path / 'net.py'}:build", "dataset=arrays",
        f"dataset.path={tmp_path / 'images.npz'}", "attack=apgd", "attack.steps=8", "threat.eps=0.02", "logger=none",
        "engine.chunk=20",
    ]  # fmt: skip


def test_runs_in_every_mode_and_form(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Searches of other precision break nearly the same images; modes are runs of their own, forms are not."""
    import json
    import platform

    from robusteval.cli import run

    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    found: dict[str, dict[str, Any]] = {}
    for name in ("exact", "fast", "fast+standard", "given"):
        extra = ["engine.oracle=given"] if name == "given" else [f"engine.mode={name}"]
        assert run([*overrides, *extra, f"runs.dir={tmp_path / name}"]) == 0
        said = capsys.readouterr()
        assert ("no instructions" in said.err) == name.startswith("fast"), said.err
        folder = Path(said.out.splitlines()[-1])
        found[name] = json.loads((folder / "results.json").read_text())
        plan = json.loads((folder / "run.json").read_text())
        assert plan["oracle"]["form"] == ("given" if name == "given" else "folded_channels_last")
        assert plan["oracle"]["precisions"] == {"fast": ["bfloat16"], "fast+standard": ["bfloat16", "float32"]}.get(
            name, ["float32"]
        )
        assert plan["key"] in folder.name
        assert run(["verify", str(folder)]) == 0
    assert len({results["fingerprint"] for results in found.values()}) == 3
    assert found["exact"]["fingerprint"] == found["given"]["fingerprint"]
    correct = {name: results["robust"]["accuracy"]["correct"] for name, results in found.items()}
    assert 0 < correct["exact"] < 40
    assert abs(correct["exact"] - correct["fast"]) <= 1
    assert correct["fast+standard"] <= min(correct["exact"], correct["fast"])
    stages = [row["stage"] for row in found["fast+standard"]["robust"]["by_stage"]]
    assert stages == ["fast-apgd", "apgd"]


def test_a_form_chosen_by_the_clock_is_obeyed_later(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    from robusteval.cli import run

    def folded_wins(passes: Any, choices: Any, *_: Any, **__: Any) -> Any:
        return [(choice, 0.0 if choice.form == "folded" else 1.0) for choice in choices]

    monkeypatch.setattr(oracle, "timed", folded_wins)
    command = [*overrides, "engine.oracle=auto", f"runs.dir={tmp_path / 'runs'}"]
    assert run(command) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    samples = (folder / "samples.parquet").read_bytes()
    for path in [*folder.glob("shards/apgd/00001-*"), folder / "results.json", folder / "samples.parquet"]:
        path.unlink()
    monkeypatch.setattr(oracle, "choose", None)  # whoever goes on does not choose again
    built: list[str] = []
    build = oracle.build
    monkeypatch.setattr(
        oracle, "build", lambda module, form, precision: built.append(form) or build(module, form, precision)
    )
    assert run(command) == 0
    assert set(built) == {"folded"}
    assert (folder / "samples.parquet").read_bytes() == samples
    assert json.loads((folder / "run.json").read_text())["oracle"]["because"] == "fastest by the clock"


def test_attacks_without_a_search_take_no_other_precision(capsys: pytest.CaptureFixture[str]) -> None:
    from robusteval.cli import run

    assert run(["attack=solarize", "attack.mode=exhaustive", "engine.mode=fast", "logger=none"]) == 2
    assert "engine.mode=fast" in capsys.readouterr().err


def test_tune_names_the_fastest_form(overrides: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from robusteval.cli import run

    assert run(["tune", *overrides]) == 0
    out = capsys.readouterr().out
    assert all(form in out for form in oracle.FORMS)
    assert "fastest here: engine.oracle=" in out
    assert max(len(line) for line in out.splitlines()) <= 100
