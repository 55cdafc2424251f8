"""A sweep: one run for each combination, none twice, and one that fails does not end the others."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from robusteval.engine.passes import Passes
from robusteval.errors import Interrupted, RobustevalError, UserError

SWEEP = ("-m", "model=mnist_cnn,mnist_cnn_at", "attack=fgsm,pgd,solarize", "dataset.n=64", "logger=none")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every call of a model by the engine, from now on."""
    counted: list[int] = []
    ask = Passes.ask

    def counting(self: Passes, query: object) -> object:
        counted.append(1)
        return ask(self, query)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Passes, "ask", counting)
    return counted


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of every file of the runs in a folder."""
    return {
        str(path): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.glob("*/**/*")
        if path.is_file() and ".sweep" not in path.parts
    }


def test_six_runs_and_no_new_pass_the_second_time(answer: Callable, tmp_path: Path, passes: list[int]) -> None:
    runs = tmp_path / "runs"
    first = answer(*SWEEP, f"runs.dir={runs}")
    assert first.code == 0, first.err
    complete = sorted(path.parent.name for path in runs.glob("*/results.json"))
    assert len(complete) == 6
    assert {name.rpartition("-")[0] for name in complete} == {
        f"{model}-mnist_5k-{attack}"
        for model in ("mnist_cnn", "mnist_cnn_at")
        for attack in ("fgsm", "pgd", "solarize")
    }
    said = [line for line in first.out.splitlines() if line.startswith(str(runs))]
    assert sorted(Path(line).name for line in said) == complete
    assert passes
    before = files(runs)
    passes.clear()
    again = answer(*SWEEP, f"runs.dir={runs}")
    assert (again.code, passes) == (0, [])
    assert files(runs) == before
    table = answer("summary", str(runs))
    assert table.code == 0
    assert len(re.findall(r"^ *mnist_cnn(?:_at)? ", table.out, re.MULTILINE)) == 6
    single = answer("model=mnist_cnn", "attack=fgsm", "dataset.n=64", "logger=none", f"runs.dir={runs}")
    assert (single.code, passes) == (0, [])  # a sweep and a single evaluation share their runs


def test_one_that_fails_does_not_end_the_others(answer: Callable, tmp_path: Path) -> None:
    """A file, where the second evaluation wants its folder."""
    sweep = ("-m", "model=mnist_cnn", "attack=none", "dataset.n=16,17,18", "logger=none", f"runs.dir={tmp_path}/runs")
    given = answer(*sweep[:3], "dataset.n=16,5000,18", *sweep[4:])
    assert given.code == 2
    assert "dataset.n=5000" in given.err
    assert "Traceback" not in given.err
    assert len(list((tmp_path / "runs").glob("*/results.json"))) == 2


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ((None, None, None), 0),
        ((None, RobustevalError("failed"), None), 1),
        ((UserError("wrong"), RobustevalError("failed"), None), 2),
        ((None, OSError(28, "No space left on device", "x"), None), 1),
    ],
)
def test_the_exit_code_is_the_largest(
    answer: Callable, monkeypatch: pytest.MonkeyPatch, outcomes: tuple[Exception | None, ...], code: int
) -> None:
    left = iter(outcomes)
    begun = []

    def evaluate(config: object, command: object, **_: object) -> Path:
        begun.append(config)
        if (outcome := next(left)) is not None:
            raise outcome
        return Path("runs/one")

    monkeypatch.setattr("robusteval.engine.runner.evaluate", evaluate)
    given = answer("-m", "seed=0,1,2", "logger=none")
    assert (given.code, len(begun)) == (code, 3)
    assert given.out.count("runs/one") == outcomes.count(None)


def test_an_interruption_ends_all(answer: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def evaluate(config: object, command: object, **_: object) -> Path:
        begun.append(config)
        raise Interrupted("SIGINT")

    monkeypatch.setattr("robusteval.engine.runner.evaluate", evaluate)
    assert answer("-m", "seed=0,1,2", "logger=none").code == 75
    assert len(begun) == 1


def test_a_sweep_of_one_and_a_folder_of_the_users(answer: Callable, tmp_path: Path, evaluated: list) -> None:
    folder = tmp_path / "my conf, [1]"
    (folder / "attack").mkdir(parents=True)
    (folder / "attack" / "short.yaml").write_text("# short\nmethod: pgd\nsteps: 2\n")
    given = answer("-m", "--config-dir", str(folder), "attack=short,fgsm", "logger=none")
    assert given.code == 0, given.err
    assert [config.attack.method for config in evaluated] == ["pgd", "fgsm"]
