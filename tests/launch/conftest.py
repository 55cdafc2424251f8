"""A pretended Slurm: sbatch keeps the scripts, squeue lists what a file says; and evaluations that are not computed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from robusteval.compose import composed, sweep
from robusteval.launch.evaluation import Evaluation

SBATCH = """#!/bin/sh
n=$(($(cat {here}/last 2>/dev/null || echo 100) + 1))
[ -e {here}/refuses-$n ] && {{ echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1; }}
echo $n > {here}/last
cp "$1" {here}/script-$n
echo "Submitted batch job $n"
"""
SQUEUE = "#!/bin/sh\n[ -e {here}/silent ] && exit 1\ncat {here}/queue 2>/dev/null\nexit 0\n"
SCONTROL = """#!/bin/sh
case "$2" in
  config) echo "MaxArraySize            = 401" ;;
  job) echo "JobId=1 JobState=OUT_OF_MEMORY Reason=None" ;;
esac
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the commands of a pretended Slurm first in the path, and return the folder of what they know."""
    here = tmp_path / "slurm"
    here.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scontrol", SCONTROL), ("srun", "#!/bin/sh\n")):
        (here / name).write_text(text.replace("{here}", str(here)).replace("{{", "{").replace("}}", "}"))
        (here / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("robusteval.launch.slurm._PATIENCE", 0.0)
    monkeypatch.setattr("robusteval.launch.slurm._PAUSES", (0.01, 0.01))
    return here


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., list[Evaluation]]:
    """Return what plans the evaluations of overrides, with their runs in a folder of this test."""

    def plan(*overrides: str) -> list[Evaluation]:
        given = ["logger=none", f"runs.dir={tmp_path}/runs", *overrides]
        return [Evaluation(mapping=composed(one), overrides=one) for one in sweep(given)]

    return plan
