"""Networks that make evaluations lie, each evaluated by the command line: refused or flagged by name, never a crash.

Their images are a user's arrays, their networks a user's file. Every one of them wraps the same small network, which
alone passes all checks.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robusteval.cli import run

NETWORKS = '''
import torch
from torch import nn


def plain():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 16, 5),
    )
    for part in net:
        if hasattr(part, "weight"):
            nn.init.normal_(part.weight, std=0.5)
    return net


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = plain()


class BatchStatistics(Wrapped):
    """Normalises by the batch, whatever eval() says."""
    def forward(self, x):
        z = self.net(x)
        return (z - z.mean(0)) / (z.std(0) + 1e-3)


class Dropout(Wrapped):
    """Drops pixels even in eval mode."""
    def forward(self, x):
        return self.net(nn.functional.dropout(x, 0.3, training=True))


class Noise(Wrapped):
    def forward(self, x):
        return self.net(x + 0.1 * torch.randn_like(x))


class Softmax(Wrapped):
    def forward(self, x):
        return self.net(x).softmax(1)


class LogSoftmax(Wrapped):
    def forward(self, x):
        return self.net(x).log_softmax(1)


class Detached(Wrapped):
    def forward(self, x):
        return self.net(x.detach())


class NoGrad(Wrapped):
    def forward(self, x):
        with torch.no_grad():
            return self.net(x)


class Quantiser(Wrapped):
    """Rounds its input to 8 grey values: a staircase, whose gradient is zero nearly everywhere."""
    def forward(self, x):
        return self.net(torch.round(x * 7) / 7)


class StraightThrough(Wrapped):
    """The same staircase with the gradient of the identity."""
    def forward(self, x):
        return self.net(x + (torch.round(x * 7) / 7 - x).detach())


class Foreign(Wrapped):
    """Gives the gradient of another function than it computes."""
    def forward(self, x):
        true = self.net(x)
        other = self.net(1 - x)
        return other + (true - other).detach()


class Steeper(Wrapped):
    """Says that its logits move ten times as far as they do."""
    def forward(self, x):
        z = self.net(x)
        return 0.1 * z.detach() + z - z.detach()


class Winners(nn.Module):
    """Keeps the largest tenth of its hidden units, so that the others' pattern jumps with any small step."""
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.head = nn.Linear(64, 4000), nn.Linear(4000, 5)
        nn.init.normal_(self.wide.weight, std=1.0)
        nn.init.normal_(self.wide.bias, std=20.0)

    def forward(self, x):
        h = self.wide(x.flatten(1))
        least = h.topk(400, 1).values[:, -1:]
        return self.head(h * (h >= least))
'''


@pytest.fixture
def evaluated(tmp_path: Path) -> Any:
    """Return a function that evaluates a network of the file and returns (exit code, results or None)."""
    (tmp_path / "nets.py").write_text(NETWORKS)
    pixels = np.random.default_rng(0).random((32, 1, 8, 8), dtype=np.float32)
    scope: dict[str, Any] = {}
    exec(NETWORKS, scope)
    torch = scope["torch"]
    with torch.no_grad():
        labels = scope["plain"]()(torch.from_numpy(pixels)).argmax(1).numpy()
    np.savez(tmp_path / "images.npz", images=pixels, labels=labels)

    def evaluate(
        network: str, *overrides: str, attack: Sequence[str] = ("attack=pgd", "attack.steps=5")
    ) -> tuple[int, dict[str, Any] | None]:
        code = run([
            "model=python", f"model.entry={tmp_path / 'nets.py'}:{network}", "dataset=arrays",
            f"dataset.path={tmp_path / 'images.npz'}", "threat.eps=0.03",
            "logger=none", f"runs.dir={tmp_path / 'runs'}", *attack, *overrides,
        ])  # fmt: skip
        found = sorted((tmp_path / "runs").glob("*/results.json"), key=lambda path: path.stat().st_mtime)
        return code, json.loads(found[-1].read_text()) if code == 0 else None

    return evaluate


def verdicts(results: dict[str, Any]) -> dict[str, str]:
    return {check["id"]: check["verdict"] for check in results["checks"]}


@pytest.mark.parametrize("network", ["plain", "LogSoftmax"])
def test_an_honest_network_passes_every_check(network: str, evaluated: Any) -> None:
    code, results = evaluated(network)
    assert code == 0
    assert {name for name, said in verdicts(results).items() if said != "pass"} <= {"subset"}, "of 32 images"
    assert 0 < results["robust"]["accuracy"]["correct"] < 32


@pytest.mark.parametrize(
    ("network", "flag"),
    [
        ("BatchStatistics", "batch"),
        ("Dropout", "deterministic"),
        ("Noise", "deterministic"),
        ("Softmax", "logits"),
        ("Quantiser", "gradient_zero"),
        ("StraightThrough", "gradient"),
        ("Foreign", "gradient"),
        ("Steeper", "gradient"),
        ("Winners", "gradient"),
    ],
)
def test_a_misleading_network_is_flagged_by_name(
    network: str, flag: str, evaluated: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code, results = evaluated(network)
    assert code == 0
    failed = {name for name, verdict in verdicts(results).items() if verdict == "fail"}
    assert flag in failed
    others = {"gradient", "quantised", "gradient_zero", "unbounded"}  # which such a network deserves as well
    assert failed <= {flag, *others}, "flags that mean nothing would not be read"
    out = capsys.readouterr().out
    assert "†" in out
    assert f"{flag}:" in out


@pytest.mark.parametrize("network", ["Detached", "NoGrad"])
def test_a_network_without_a_gradient_is_refused(
    network: str, evaluated: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = evaluated(network)
    assert code == 2
    assert "differentiably" in capsys.readouterr().err


@pytest.mark.slow
def test_a_randomised_network_is_judged_by_its_mean_and_named(evaluated: Any) -> None:
    """With gradients averaged or none at all the number stands, with a warning; and a second process gets the same."""
    for attack in (["attack=pgd", "attack.eot=3"], ["attack=square", "attack.queries=20"]):
        code, results = evaluated("Noise", attack=attack)
        assert code == 0
        assert verdicts(results)["deterministic"] == "warn"
    _, again = evaluated("Noise", "runs.fresh=true", attack=attack)
    assert again["evidence"] == results["evidence"]
    assert results["cost"]["forward_passes"] > 32 * 20, "the clean prediction alone is the mean of 20 passes"


def test_more_draws_are_another_run(evaluated: Any) -> None:
    _, few = evaluated("Noise", "engine.draws=2")
    _, many = evaluated("Noise", "engine.draws=50")
    assert few["fingerprint"] != many["fingerprint"]
    assert many["cost"]["forward_passes"] - few["cost"]["forward_passes"] >= 32 * 48
