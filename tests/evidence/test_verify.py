"""verify passes on a run, and after any changed byte it fails and names the place."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from robusteval.cli import run
from robusteval.evidence import atomic
from robusteval.evidence.shards import encode


def test_a_run_verifies(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(finished)]) == 0
    out = capsys.readouterr().out
    assert "96 made again" in out
    assert "(100%)" in out


@pytest.mark.parametrize(
    "pattern", ["shards/*-clean/*.parquet", "shards/*-pgd/*.parquet", "adversarials/*/*.safetensors", "samples.parquet"]
)
def test_any_changed_byte_is_found_and_named(damaged: Path, pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    for victim in sorted(damaged.glob(pattern)):
        data = victim.read_bytes()
        for at in (0, len(data) // 3, len(data) // 2, len(data) - 1):
            victim.write_bytes(data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :])
            assert run(["verify", "--files", str(damaged)]) == 1
            assert victim.name in capsys.readouterr().out
        victim.write_bytes(data)
    assert run(["verify", "--files", str(damaged)]) == 0


@pytest.mark.parametrize("key", ["robust", "clean", "attacked", "checks", "threat", "fingerprint"])
def test_a_changed_result_is_found_and_named(damaged: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads((damaged / "results.json").read_text())
    results[key] = {} if isinstance(results[key], dict) else "other"
    (damaged / "results.json").write_text(json.dumps(results))
    assert run(["verify", "--files", str(damaged)]) == 1
    assert f"'{key}'" in capsys.readouterr().out


def forge(path: Path, image: torch.Tensor) -> None:
    """Replace the adversarials of a file and make every checksum fit again, as a liar with our code would."""
    tensors = load_file(path)
    tensors["image"] = image.expand_as(tensors["image"]).contiguous()
    save_file(tensors, path, metadata={"fingerprint": "x"})
    new = path.with_name(f"{path.name.partition('-')[0]}-{atomic.sha256(path.read_bytes())[:12]}.safetensors")
    path.rename(new)

    (shard,) = path.parents[2].glob(f"shards/{path.parent.name}/{path.name.partition('-')[0]}-*.parquet")
    table = pq.read_table(shard)
    marks = {**table.schema.metadata, b"adversarials": new.name.encode()}

    data = encode(table.replace_schema_metadata(marks))
    shard.unlink()
    shard.with_name(f"{path.name.partition('-')[0]}-{atomic.sha256(data)[:12]}.parquet").write_bytes(data)


def test_adversarials_that_do_not_fool_are_found(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    victim = next(iter(sorted(damaged.glob("adversarials/*/*.safetensors"))))
    forge(victim, torch.full((1, 1, 28, 28), 0.5))
    assert run(["verify", "--files", str(damaged)]) == 0
    assert run(["verify", str(damaged)]) == 1
    assert "outside the threat model" in capsys.readouterr().out


def test_an_incomplete_run_is_refused(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (damaged / "results.json").unlink()
    assert run(["verify", str(damaged)]) == 2
    assert "is not complete" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{}", '{"plan": 1}', '{"plan": {"stages": 2, "chunks": 1}}', "[]", "null"])
def test_a_run_json_without_a_plan_is_told_in_a_sentence(damaged: Path, content: str, capsys) -> None:
    (damaged / "run.json").write_text(content)
    assert run(["verify", str(damaged)]) == 2
    assert "run.json" in capsys.readouterr().err
    assert run(["status", str(damaged.parent)]) == 0
    assert "damaged" in capsys.readouterr().out
