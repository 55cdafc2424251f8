#!/usr/bin/env bash
# Builds the sdist, the wheel from it, installs that in a clean environment, and evaluates from another folder.
# What only works from a checkout (links, data files, top-level folders) fails here.
set -euo pipefail

python=$(realpath -s "${PYTHON:?name the Python that has the package build}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m build --outdir "$work/dist" . # builds the wheel from the sdist
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$(ls "$work"/dist/*.whl)[demo]"

mkdir "$work/elsewhere"
cd "$work/elsewhere"
"$work/venv/bin/robusteval" dataset.n=100 attack.steps=5 logger=none | tee out
run=$(tail -n 1 out)
"$work/venv/bin/python" -m robusteval verify "$run"
# Hydra finds our launchers in an installed package, too.
"$work/venv/bin/robusteval" -m seed=0,1 attack=none dataset.n=16 logger=none hydra/launcher=local hydra.launcher.processes=2
"$work/venv/bin/robusteval" --cfg hydra -p hydra.launcher hydra/launcher=slurm | grep -q SlurmLauncher
rm "$run/report.html"
"$work/venv/bin/robusteval" report "$run"
grep -q "Reliability diagram" "$run/report.html"
"$work/venv/bin/python" - <<'PY'
import pathlib, sys
import robusteval, robusteval.attacks, robusteval.conf
site = pathlib.Path(robusteval.__file__).parent
assert "site-packages" in str(site), site
assert not (site.parent / "attacks").exists() and not (site.parent / "conf").exists(), "top-level names leak into site-packages"
PY
echo "the wheel works"
