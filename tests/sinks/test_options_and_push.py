"""Options of the sinks, their YAML, and ``robusteval push``."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from pydantic import TypeAdapter, ValidationError

from robusteval.errors import RobustevalError, UserError
from robusteval.sinks.options import NoLogger, WandbLogger
from robusteval.sinks.push import main

CONF = Path(__file__).parents[2] / "conf" / "logger"


@pytest.mark.parametrize(("name", "kind"), [("none", NoLogger), ("wandb", WandbLogger)])
def test_the_yaml_holds_the_fields_and_their_defaults(name: str, kind: type) -> None:
    written = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert TypeAdapter(kind).validate_python(written) == kind()
    assert isinstance(written, dict)
    assert list(written) == [field.name for field in dataclasses.fields(kind)]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"mode": "dry"}, "'auto', 'online', 'offline' or 'disabled'"),
        ({"project": "a/b"}, "is no project's name"),
        ({"project": ""}, "is no project's name"),
        ({"tags": ["x" * 65]}, "1 to 64 letters"),
        ({"tags": [""]}, "1 to 64 letters"),
        ({"rows": -1}, "greater than or equal to 0"),
        ({"rows": 200_001}, "less than or equal to 200000"),
        ({"images": 109}, "less than or equal to 108"),
        ({"init_timeout": 0}, "greater than 0"),
        ({"mode": "disabled", "required": True}, "contradicts mode=disabled"),
    ],
)
def test_bad_options_are_refused(option: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(WandbLogger).validate_python(option)


def test_push_sends_a_run_as_it_was_configured(
    make_run: Callable[[str], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run("run")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert main([str(folder), "--mode", "offline", "--project", "other"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    (sink,) = json.loads((folder / "results.json").read_text())["sinks"]
    assert str(folder / sink["where"]) in line
    options = dataclasses.asdict(WandbLogger(mode="disabled", tags=("a",)))
    (folder / "config.yaml").write_text(OmegaConf.to_yaml({"logger": {**options, "tags": ["a"]}}))
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out == "wandb: disabled\n"


def test_push_without_an_account_fails_when_online_was_asked_for(make_run: Callable[[str], Path]) -> None:
    folder = make_run("run")
    with pytest.raises(RobustevalError, match="was not sent as asked"):
        main([str(folder), "--mode", "online"])


def test_push_names_what_is_wrong(make_run: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no results\.json"):
        main([str(tmp_path)])
    with pytest.raises(UserError, match="--project='a/b' is no project's name"):
        main([str(make_run("run")), "--project", "a/b"])
