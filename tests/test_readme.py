"""Every command of the README, run as a newcomer would, on few images."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robusteval.cli import run as command_line

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
FILES = dict(re.findall(r"^`(\w+\.py)`\n\n```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL))

# These two are what runs this test, and what CI runs besides it.
MAKE = {"make demo", "make test"}


def needs_imagenet(command: str) -> bool:
    """Return whether a command must say that ImageNet is missing; tests/cli runs one whole on a folder of pictures."""
    named = command.partition("model=")[2].split(" ")[0]
    return named in ("resnet50", "timm") and "dataset=" not in command


def few(command: str) -> str:
    """Return the command on few images and in few steps: what is tested is that it works, not its figures."""
    if not command.startswith(("python -m robusteval", "robusteval selftest")):
        return command
    if "efficientnet" in command:
        return f"{command} dataset.n=2 attack.steps=1 checks=off engine.oracle=given"
    if command == "robusteval selftest":  # all of it has a test of its own
        return f"{command} noise solarize"
    if "experiment=padding_study" in command:  # three of its 48 runs
        return f"{command} model.mode=zeros model.adversarial=true threat=linf_0.3 dataset.n=10"
    if "experiment=confidence_study" in command:  # the whole budget, so in batches of 16
        return f"{command} dataset.n=10 runs.dir=study"
    if "attack=autoattack" in command:
        return f"{command} attack.steps=2 attack.queries=5"
    if "attack=fmn" in command:
        return f"{command} attack.steps=10 dataset.n=20"
    short = "attack=pgd" in command and "," not in command and "attack.steps" not in command
    return command + ("" if "dataset.n=" in command else " dataset.n=20") + (" attack.steps=3" if short else "")


# What a command needs that one before it left: the tests may run in any order, in several processes.
LEFT_BY = {
    "images.npz": ("images.npz", "python myimages.py"),
    "mynet.pt": ("mynet.pt", "python mycheckpoint.py"),
    "compare": ("runs/mnist_cnn-mnist_5k-fgsm-*/results.json", COMMANDS[2]),
    "OTHER": ("runs/mnist_cnn_at-mnist_5k-pgd-*/results.json", COMMANDS[3]),
    "RUN": ("runs/*/results.json", COMMANDS[2]),
    "robusteval summary": ("runs/*/results.json", COMMANDS[2]),
    "robusteval report": ("runs/*/results.json", COMMANDS[2]),
    "robusteval status": ("runs/*/results.json", COMMANDS[2]),
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a newcomer's folder with the files that the README shows."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


HIDDEN = ("IMAGENET_ROOT", "ROBUSTEVAL_RUNS", "WANDB_API_KEY")


def newcomer(folder: Path) -> dict[str, str]:
    """Return the variables of somebody who has nothing yet."""
    return {"HOME": str(folder), "TORCH_HOME": str(folder / "torch"), "WANDB_MODE": "offline"}


def run(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    words = shlex.split(command)
    if "OTHER" in words:  # two runs on the same images
        for word, needed in (("RUN", LEFT_BY["compare"][0]), ("OTHER", LEFT_BY["OTHER"][0])):
            words[words.index(word)] = str(next(folder.glob(needed)).parent)
    if "RUN" in words:
        (newest, *_) = sorted(
            (path for path in (folder / "runs").glob("*/results.json") if (path.parent / "run.json").is_file()),
            key=lambda path: path.stat().st_mtime,
            reverse=True,
        )
        words[words.index("RUN")] = str(newest.parent)
    if words[0] == "robusteval":
        words = ["python", "-m", *words]
    if words[:3] == ["python", "-m", "robusteval"] and command not in COMMANDS[2:4]:
        return in_this_process(words[3:], folder)
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    kept = {key: value for key, value in os.environ.items() if key not in HIDDEN}
    return subprocess.run(
        [sys.executable, *words[1:]],
        cwd=folder,
        env=kept | newcomer(folder) | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def in_this_process(arguments: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command line as a process of its own would, but for the seconds that importing torch takes."""
    out, err, before = io.StringIO(), io.StringIO(), set(sys.modules)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(torch.hub, "_hub_dir", None)
        for name in HIDDEN:
            patch.delenv(name, raising=False)
        for name, value in newcomer(folder).items():
            patch.setenv(name, value)
        code = command_line(arguments)
    for name in set(sys.modules) - before:  # modules of the newcomer's folder
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def test_the_blocks_are_there() -> None:
    assert set(COMMANDS) >= MAKE
    assert set(FILES) == {"mynet.py", "myimages.py", "mycheckpoint.py"}
    assert all(len([line for line in text.splitlines() if line.strip()]) <= 5 for text in FILES.values())


# Other tests do much the same.
LONG = ("efficientnet", "experiment=", "mnist_cnn,mnist_cnn_at attack=fgsm,pgd,solarize", "hydra/launcher=local")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=pytest.mark.slow if any(word in command for word in LONG) else [])
        for command in COMMANDS
        if command not in MAKE
    ],
)
def test_command(command: str, folder: Path) -> None:
    for word, (needed, before) in LEFT_BY.items():
        if word in command and not list(folder.glob(needed)):
            assert run(few(before), folder).returncode == 0
    done = run(few(command), folder)
    if needs_imagenet(command):
        assert done.returncode == 2, done.stderr
        assert "IMAGENET_ROOT" in done.stderr
        assert "Traceback" not in done.stderr
        return
    assert done.returncode == 0, done.stdout + done.stderr
    if "experiment=" in command:  # several runs, and what they say together
        assert done.stdout.splitlines()[-1].startswith("written: ")
    elif command.startswith("python -m robusteval"):
        assert (folder / done.stdout.splitlines()[-1] / "results.json").is_file()
