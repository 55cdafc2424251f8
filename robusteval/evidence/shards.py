"""Shards: one small parquet file for each (stage, chunk), its sha256 in its name.

A shard is there whole or not at all. Its metadata say which run, stage and chunk it belongs to. A file that fails any
of this is set aside into ``damaged/`` and computed again, never averaged in.
"""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from robusteval.evidence import atomic

_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The shards of one stage of a run: ``folder`` is shards/<stage>, ``fingerprint`` that of the run."""

    folder: Path
    fingerprint: str

    @property
    def stage(self) -> str:
        return self.folder.name

    def write(self, chunk: int, table: pa.Table, **metadata: str) -> Path:
        """Write the shard of a chunk and return its path."""
        marks = {"fingerprint": self.fingerprint, "stage": self.stage, "chunk": str(chunk), **metadata}
        return _write(self.folder, f"{chunk:05d}", table.replace_schema_metadata(marks))

    def inspect(self) -> tuple[dict[int, Path], list[Path]]:
        """Return the intact shards by chunk, and the files that are not: damaged, foreign or twice. Touches nothing."""
        found: dict[int, Path] = {}
        faulty: list[Path] = []
        for path in sorted(self.folder.glob("*.parquet")):
            chunk = self._chunk_of(path)
            if chunk is None or chunk in found:
                faulty.append(path)
            else:
                found[chunk] = path
        return found, faulty

    def of(self, chunk: int) -> Path | None:
        """Return the intact shard of a chunk, None where there is none."""
        there = sorted(self.folder.glob(f"{chunk:05d}-*.parquet"))
        return next((path for path in there if self._chunk_of(path) == chunk), None)

    def _chunk_of(self, path: Path) -> int | None:
        if fault(path) is not None:
            return None
        marks = metadata_of(path)
        if marks.get("fingerprint") != self.fingerprint or marks.get("stage") != self.stage:
            return None
        name = path.name.partition("-")[0]
        return int(name) if name.isdigit() and marks.get("chunk") == str(int(name)) else None


def fault(path: Path) -> str | None:
    """Return what is wrong with a checksummed file, or None."""
    expected = path.stem.rpartition("-")[2]
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    if atomic.sha256(data)[:_DIGITS] != expected:
        return f"{path} does not match the checksum in its name"
    return None


def metadata_of(path: Path) -> dict[str, str]:
    """Return the metadata of a shard, empty where the file is no parquet."""
    try:
        raw = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return {}
    return {key.decode(): value.decode() for key, value in raw.items()}


def read(path: Path) -> pa.Table:
    """Return the table of a shard."""
    return pq.read_table(path, memory_map=False)


def checksummed(folder: Path, name: str, data: bytes, suffix: str) -> Path:
    """Write ``data`` as folder/<name>-<sha12><suffix> and return the path; ``folder`` is RUN/<kind>/<stage>.

    Raises RobustevalError where the disk fails, or where the run folder is gone.
    """
    atomic.refuse_vanished(folder.parent.parent)
    path = folder / f"{name}-{atomic.sha256(data)[:_DIGITS]}{suffix}"
    atomic.write(path, data)
    return path


def encode(table: pa.Table) -> bytes:
    """Return a table as the bytes of a parquet file; the same table gives the same bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_statistics=False)
    return sink.getvalue()


def set_aside(path: Path) -> None:
    """Move a damaged or foreign file into the run's ``damaged`` folder, unless another process has done so."""
    run = next(parent for parent in path.parents if parent.name in ("shards", "adversarials", "forensics")).parent
    target = run / "damaged" / path.parent.name / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.replace(target)


def _write(folder: Path, name: str, table: pa.Table) -> Path:
    return checksummed(folder, name, encode(table), ".parquet")
