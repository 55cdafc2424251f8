"""Downloads from a server on this machine that fails in every way servers fail."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from robusteval import downloads
from robusteval.downloads import download, sniff
from robusteval.errors import UserError

CONTENT = bytes(range(256)) * 9000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    seen: list[str]

    def do_GET(self) -> None:
        first = self.path not in self.seen
        self.seen.append(self.path)
        body, status, length = CONTENT, 200, len(CONTENT)
        match self.path:
            case "/gone":
                status = 404
            case "/busy" | "/busy-once" if first or self.path == "/busy":
                status = 503
            case "/cut" | "/cut-once" if first or self.path == "/cut":
                body = CONTENT[:1000]
            case "/page":
                body = b"\n <!DOCTYPE html><html>quota exceeded</html>"
                length = len(body)
            case "/empty":
                body, length = b"", 0
            case "/damaged-once" if first:
                body = CONTENT[::-1]
            case "/moved":
                self.send_response(302)
                self.send_header("Location", "/good")
                self.end_headers()
                return
            case "/silent":
                time.sleep(1)
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent when a client has gone."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(downloads, "PAUSE", 0.01)
    Handler.seen = []
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("name", "requests"), [("good", 1), ("moved", 1), ("busy-once", 2), ("cut-once", 2), ("damaged-once", 2)]
)
def test_the_file_arrives_whole(server: str, tmp_path: Path, name: str, requests: int) -> None:
    target = tmp_path / "new" / "file.bin"
    assert download(f"{server}/{name}", target, sha256=SHA256) == target
    assert target.read_bytes() == CONTENT
    assert Handler.seen.count(f"/{name}") == requests
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]


def test_a_prefix_of_the_digest_or_none_will_do(server: str, tmp_path: Path) -> None:
    download(f"{server}/good", tmp_path / "a", sha256_prefix=SHA256[:8].upper())
    download(f"{server}/good", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "message", "requests"),
    [
        ("gone", "the server answers 404 Not Found", 1),
        ("busy", "the server answers 503", 3),
        ("cut", "1000 (of|bytes)", 3),
        ("page", "the server sent an HTML page", 1),
        ("empty", "the server sent an empty file", 1),
    ],
)
def test_what_fails_leaves_nothing_and_one_sentence(
    server: str, tmp_path: Path, name: str, message: str, requests: int
) -> None:
    target = tmp_path / "file.bin"
    target.write_text("the old one")
    with pytest.raises(UserError, match=rf"could not download {server}/{name}: .*{message}.*put it at {target}"):
        download(f"{server}/{name}", target)
    assert target.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [target]
    assert Handler.seen.count(f"/{name}") == requests


def test_another_digest_is_refused_with_both(server: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"its sha256 is {SHA256[:8]}, but deadbeef was expected"):
        download(f"{server}/good", tmp_path / "a", sha256_prefix="deadbeef")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_falls_silent_is_given_up(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "READ", 0.1)
    with pytest.raises(UserError, match=r"the connection failed .*timed out"):
        download(f"{server}/silent", tmp_path / "a")


def test_a_closed_port_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(UserError, match=r"cannot reach 127\.0\.0\.1 \(Connection refused\)"):
        download(f"http://127.0.0.1:{port}/x", tmp_path / "a")
    assert time.monotonic() - start < 2


def test_a_host_that_never_answers_costs_under_eight_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking up a name has no timeout of its own: here it hangs."""
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.delenv("HTTP_PROXY", raising=False)

    def hang(*args: object, **kwargs: object) -> None:
        time.sleep(20)
        raise TimeoutError("gave up")

    monkeypatch.setattr(socket, "create_connection", hang)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"cannot reach weights\.example within 3 s"):
        download("http://weights.example/x", tmp_path / "a")
    assert time.monotonic() - start < 8


def test_the_proxy_is_what_has_to_be_reached(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server)
    monkeypatch.setenv("no_proxy", "")
    download("http://weights.example/file", tmp_path / "a", sha256=SHA256)
    assert Handler.seen == ["http://weights.example/file"]


def test_a_folder_that_cannot_be_written_is_named(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"cannot write {tmp_path}/file/a"):
        download(f"{server}/good", tmp_path / "file" / "a")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "an empty file"),
        (b"  \n", "an empty file"),
        (b"<html>", "an HTML page"),
        (b"\n<?xml version", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        (b"PK\x03\x04", None),
        (b"\x80\x02", None),
    ],
)
def test_first_bytes_tell_what_a_file_is(tmp_path: Path, raw: bytes, expected: str | None) -> None:
    (tmp_path / "a").write_bytes(raw)
    found = sniff(tmp_path / "a")
    assert found is None if expected is None else (found or "").startswith(expected)
