"""Downloads that either give the right file or one sentence: retried, written aside and renamed, checked.

Also ``sniff``, which tells from the first bytes of a file what it is instead of what it should be.
"""

import hashlib
import http.client
import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from urllib.parse import urlsplit

from robusteval import __version__
from robusteval.errors import UserError

CONNECT = 3.0  # seconds until a host counts as unreachable, name resolution included
READ = 30.0  # seconds without a byte from a host that was reached
TRIES = 3
PAUSE = 0.3  # seconds before the second try, doubled before the third
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers of a server that may do better in a moment


class _FailedError(Exception):
    """One try that failed, and how many tries in all such a failure deserves."""

    def __init__(self, reason: str, tries: int) -> None:
        super().__init__(reason)
        self.tries = tries


def download(
    url: str, path: str | os.PathLike[str], *, sha256: str | None = None, sha256_prefix: str | None = None
) -> Path:
    """Fetch ``url`` (http or https) into ``path``, which then is whole and has the digest (hex) given.

    Says so in one line on standard error. Raises UserError with what failed and how to do it by hand; an unreachable
    host costs under 8 seconds. Two processes may fetch the same file: each writes its own and renames it.
    """
    target = Path(path)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    print(f"downloading {url} to {target}", file=sys.stderr, flush=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _try(url, aside, sha256, sha256_prefix)
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)
    except _FailedError as failure:
        raise UserError(f"could not download {url}: {failure}; get it by hand and put it at {target}") from failure
    except OSError as error:
        raise UserError(f"cannot write {target} ({error.strerror or error}); choose another folder") from error
    return target


def sniff(path: str | os.PathLike[str]) -> str | None:
    """Return what a file is that cannot be the binary file it is named as, or None where its first bytes allow that.

    Finds empty files, HTML and XML pages, Git LFS pointers.
    """
    with Path(path).open("rb") as file:
        head = file.read(256).lstrip()
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself (run: git lfs pull)"
    if head.startswith(b"<"):
        return "an HTML page (of a login, an error or a download quota), not the file itself"
    return None


def _try(url: str, aside: Path, sha256: str | None, prefix: str | None) -> None:
    """Fetch into ``aside`` until it is right or no further try would help."""
    for attempt in range(1, TRIES + 1):
        try:
            _reach(url)
            found = _fetch(url, aside)
            _check(aside, found, sha256, prefix)
        except _FailedError as failure:
            if attempt >= failure.tries:
                raise
            time.sleep(PAUSE * 2 ** (attempt - 1))
        else:
            return


def _reach(url: str) -> None:
    """Open a connection to the host, or to the proxy before it, and close it again.

    In a thread of its own, because looking up a name has no timeout and every address of a host has one for itself.
    """
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.netloc):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    outcome: list[OSError | None] = []

    def connect() -> None:
        try:
            socket.create_connection((parts.hostname or "", port), timeout=CONNECT).close()
        except OSError as error:
            outcome.append(error)
        else:
            outcome.append(None)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT)
    if not outcome:
        raise _FailedError(f"cannot reach {parts.hostname} within {CONNECT:g} s", tries=2)
    if outcome[0] is not None:
        raise _FailedError(f"cannot reach {parts.hostname} ({outcome[0].strerror or outcome[0]})", tries=2)


def _fetch(url: str, aside: Path) -> str:
    """Write the answer to ``aside`` and return the sha256 of what came."""
    request = urllib.request.Request(url, headers={"User-Agent": f"robusteval/{__version__}"})
    digest, size = hashlib.sha256(), 0
    try:
        answer = urllib.request.build_opener().open(request, timeout=READ)
    except urllib.error.HTTPError as error:
        with error:
            raise _FailedError(
                f"the server answers {error.code} {error.reason}", TRIES if error.code in BUSY else 1
            ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _FailedError(f"the connection failed ({_why(error)})", TRIES) from error
    with answer, aside.open("wb") as file:
        expected = answer.headers.get("Content-Length")
        while True:
            try:
                block = answer.read(1 << 20)
            except (OSError, http.client.HTTPException) as error:
                raise _FailedError(f"the connection broke after {size} bytes ({_why(error)})", TRIES) from error
            if not block:
                break
            file.write(block)
            digest.update(block)
            size += len(block)
        file.flush()
        os.fsync(file.fileno())
    if expected is not None and size != int(expected):
        raise _FailedError(f"only {size} of {expected} bytes came", TRIES)
    return digest.hexdigest()


def _check(aside: Path, found: str, sha256: str | None, prefix: str | None) -> None:
    if what := sniff(aside):
        raise _FailedError(f"the server sent {what}", 1)
    wanted = (sha256 or prefix or "").lower()
    if not found.startswith(wanted):
        raise _FailedError(f"its sha256 is {found[: len(wanted)]}, but {wanted} was expected", TRIES)


def _why(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error) or type(error).__name__
