"""Weights & Biases when it is not there: no result is lost, no time either, and what is required fails early."""

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from robusteval.errors import RobustevalError
from robusteval.sinks import content
from robusteval.sinks.options import NoLogger, WandbLogger
from robusteval.sinks.push import prepare, push

Maker = Callable[[str], Path]
KEY = "0" * 40
# In a process of its own: W&B keeps what it knows of a server as long as the process lives.
CHILD = """
import json, sys, time
from pathlib import Path
from robusteval.errors import RobustevalError
from robusteval.sinks.options import WandbLogger
from robusteval.sinks.push import prepare, push
logger, begun = WandbLogger(**json.loads(sys.argv[2])), time.monotonic()
try:
    prepare(logger)
    entry = push(logger, Path(sys.argv[1]))
except RobustevalError as error:
    entry = {"raised": str(error)}
print(json.dumps([entry, time.monotonic() - begun]))
"""


def child(folder: Path, **options: Any) -> tuple[dict[str, Any], float]:
    """Send a run from another process; return what came of it, and the seconds it took until the process was gone."""
    begun = time.monotonic()
    command = [sys.executable, "-c", CHILD, str(folder), json.dumps(options)]
    alone = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # not this process's service
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False, env=alone
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    entry, _ = json.loads(done.stdout)
    return entry, time.monotonic() - begun


def results_are_whole(folder: Path, entry: dict[str, Any]) -> None:
    results = json.loads((folder / "results.json").read_text())
    assert results["sinks"] == [entry]
    assert results["clean"]["accuracy"]["correct"] == 37


@pytest.fixture
def dead_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account, and an address where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_API_KEY", KEY)


@pytest.fixture
def failing_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that knows the account and fails at everything else."""
    viewer = {"id": "u", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            known = b"query Viewer" in asked
            answer = json.dumps({"data": {"viewer": viewer}} if known else {"errors": [{"message": "broken"}]}).encode()
            self.send_response(200 if known else 500)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    yield
    server.shutdown()
    server.server_close()


def test_without_an_account_the_run_is_kept_offline(make_run: Maker) -> None:
    folder = make_run("run")
    entry, seconds = child(folder)
    assert (entry["mode"], entry["errors"]) == ("offline", [])
    assert list((folder / entry["where"]).glob("run-*.wandb"))
    assert seconds < 20
    results_are_whole(folder, entry)


def test_online_without_an_account_says_so_and_is_kept_offline(make_run: Maker) -> None:
    folder = make_run("run")
    entry = push(WandbLogger(mode="online"), folder)
    assert (entry["mode"], entry["errors"]) == ("offline", ["no account on this machine"])
    results_are_whole(folder, entry)


@pytest.mark.usefixtures("dead_server")
def test_a_dead_server_costs_no_result_and_under_30_s(make_run: Maker) -> None:
    folder = make_run("run")
    entry, seconds = child(folder)
    assert entry["mode"] == "offline", entry
    assert "no login" in entry["errors"][0]
    assert seconds < 30
    results_are_whole(folder, entry)


@pytest.mark.usefixtures("failing_server")
def test_a_server_that_fails_after_the_login_costs_no_result_and_under_30_s(make_run: Maker) -> None:
    folder = make_run("run")
    entry, seconds = child(folder)
    assert entry["mode"] == "offline", entry
    assert "no online run could be begun" in entry["errors"][0]
    assert list((folder / entry["where"]).glob("run-*.wandb"))
    assert seconds < 30
    results_are_whole(folder, entry)


@pytest.mark.usefixtures("dead_server")
def test_required_fails_before_the_attack_when_the_server_is_dead(make_run: Maker) -> None:
    entry, seconds = child(make_run("run"), required=True)
    assert "logger.required=true, but nothing could be sent" in entry["raised"]
    assert seconds < 30


def test_required_fails_before_the_attack_without_an_account() -> None:
    for mode in ("auto", "online"):
        with pytest.raises(RobustevalError, match="no account on this machine"):
            prepare(WandbLogger(required=True, mode=mode))


def test_required_accepts_an_offline_run_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(WandbLogger(required=True, mode="offline"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    prepare(WandbLogger(required=True))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with pytest.raises(RobustevalError, match="WANDB_MODE=disabled"):
        prepare(WandbLogger(required=True))


def test_what_is_not_required_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    prepare(WandbLogger(mode="online"))
    prepare(NoLogger())


def test_disabled_leaves_nothing(make_run: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    folder = make_run("run")
    entry = push(WandbLogger(), folder)
    assert entry == {"name": "wandb", "mode": "disabled", "where": None, "errors": []}
    assert not (folder / "wandb").exists()
    results_are_whole(folder, entry)


def test_an_option_beats_the_environment(make_run: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    entry = push(WandbLogger(mode="offline"), make_run("run"))
    assert entry["mode"] == "offline", entry


@pytest.mark.parametrize("how", ["absent", "a folder called wandb"])
def test_without_wandb_the_result_stands(make_run: Maker, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    stand_in = None if how == "absent" else type(sys)("wandb")
    monkeypatch.setitem(sys.modules, "wandb", stand_in)  # pyright: ignore[reportArgumentType]
    folder = make_run("run")
    entry = push(WandbLogger(), folder)
    assert (entry["mode"], entry["errors"]) == ("missing", ["wandb is not installed: pip install wandb"])
    results_are_whole(folder, entry)
    with pytest.raises(RobustevalError, match="pip install wandb"):
        prepare(WandbLogger(required=True))


def test_a_failure_while_sending_is_noted_and_the_run_marked_failed(
    make_run: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(content, "samples", full)
    folder = make_run("run")
    entry = push(WandbLogger(mode="offline"), folder)
    assert entry["errors"] == ["the run was not sent whole: no space left on device"]
    results_are_whole(folder, entry)
    (file,) = (folder / entry["where"]).glob("run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(file)]
    read = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
    assert (read["state"], read["exit_code"]) == ("failed", 1)


def test_a_bug_of_ours_is_not_swallowed(make_run: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(content, "samples", bug)
    with pytest.raises(KeyError, match="ours"):
        push(WandbLogger(mode="offline"), make_run("run"))


def test_no_logger_sends_nothing(make_run: Maker) -> None:
    folder = make_run("run")
    before = (folder / "results.json").read_bytes()
    assert push(NoLogger(), folder)["mode"] == "none"
    assert (folder / "results.json").read_bytes() == before
