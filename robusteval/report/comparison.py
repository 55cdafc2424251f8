"""What runs on the same images say of each other: every pair, class by class and stage by stage."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from robusteval.errors import UserError
from robusteval.evidence import atomic
from robusteval.evidence.folder import RunFolder
from robusteval.metrics.accuracy import rate
from robusteval.metrics.curve import robust_at
from robusteval.metrics.paired import counts, holm, mcnemar, paired
from robusteval.report.flags import flagged
from robusteval.report.runs import readable
from robusteval.report.words import largest, threat_in_words


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A complete run with its letter in the comparison."""

    letter: str
    folder: RunFolder
    results: Mapping[str, Any]
    samples: pa.Table

    def flag(self, name: str) -> np.ndarray:
        return self.samples[name].to_numpy(zero_copy_only=False)

    @property
    def radii(self) -> list[float]:
        """The radii at which this run knows which images are robust, ascending; none where unbounded."""
        threat, robust = self.results["threat"], self.results["robust"]
        known = [point["eps"] for point in robust.get("curve", ())]
        return known or ([] if threat["eps"] is None else [threat["eps"]])


def load(folders: Sequence[RunFolder]) -> list[Compared]:
    """Return the runs with their letters. Raises UserError where one is not complete, or is about other images."""
    runs = []
    for number, folder in enumerate(folders):
        if folder.path.resolve() in [other.path.resolve() for other in folders[:number]]:
            raise UserError(f"{folder.path} is named twice; name each run once")
        results, samples = readable(folder), folder.samples()
        if atomic.sha256(folder.samples_file.read_bytes()) != results["evidence"]["samples_sha256"]:
            raise UserError(
                f"{folder.samples_file} is not what results.json was made of; see robusteval verify {folder.path}"
            )
        runs.append(Compared(letter=_letter(number), folder=folder, results=results, samples=samples))
    for run in runs[1:]:
        _same_images(runs[0], run)
    return runs


def compare(runs: Sequence[Compared], seed: int = 0) -> dict[str, Any]:
    """Return the whole comparison in plain numbers, fit for strict JSON; accuracies are fractions.

    {images, runs, differences, pairs, difficulty}. A pair has ``clean`` and ``robust`` as
    :func:`robusteval.metrics.paired.paired` returns them, with ``p_holm`` over all pairs; ``at`` the same at each
    radius that both know, where that adds something; ``by_class``, ``by_stage``, and the ids that ``only`` one
    survives. ``difficulty`` counts the images that all, some, or none survive.
    """
    standing = np.stack([run.flag("robust") for run in runs]).sum(0)
    pairs = [_pair(one, other, seed) for one, other in combinations(runs, 2)]
    for part in ("clean", "robust"):
        for pair, p in zip(pairs, holm([pair[part]["p"] for pair in pairs]), strict=True):
            pair[part]["p_holm"] = p
    return {
        "images": {**runs[0].results["dataset"], "n": len(runs[0].samples)},
        "runs": [_entry(run) for run in runs],
        "differences": list(differences(runs)),
        "pairs": pairs,
        "difficulty": {
            "all": int((standing == len(runs)).sum()),
            "some": int(((standing > 0) & (standing < len(runs))).sum()),
            "none": int((standing == 0).sum()),
        },
    }


def differences(runs: Sequence[Compared]) -> Iterator[dict[str, Any]]:
    """Yield {field, values} of every setting in which the runs differ, one value a run: what the numbers may be of."""
    facts = [run.folder.run for run in runs]
    model, attack = ([fact[part]["name"] for fact in facts] for part in ("model", "attack"))
    columns = {
        "model": model,
        "attack": attack,
        "threat": [threat_in_words(fact["threat"]) for fact in facts],
        "region": [fact["threat"].get("region") for fact in facts],
        "seed": [fact["seed"] for fact in facts],
        "mode": [fact["plan"]["mode"] for fact in facts],
        "draws": [fact["draws"] for fact in facts],
        "stopping rule": [fact["plan"].get("stopping") for fact in facts],
        "preprocessing": [fact["digests"]["preprocessing"] for fact in facts],
    }
    if len(set(model)) == 1:
        columns["weights"] = [fact["digests"]["model"][:12] for fact in facts]
    if len(set(attack)) == 1:  # of two different attacks the options have nothing to do with each other
        options = dict.fromkeys(name for fact in facts for name in fact["attack"])
        columns |= {f"attack.{name}": [fact["attack"].get(name) for fact in facts] for name in options}
    for field, values in columns.items():
        if any(value != values[0] for value in values):
            yield {"field": field, "values": values}


def disagreements(runs: Sequence[Compared]) -> list[dict[str, Any]]:
    """Return a row for each image that some runs survive and others do not: id, label, and each run's verdict."""
    robust = np.stack([run.flag("robust") for run in runs])
    ids, labels = runs[0].flag("id"), runs[0].flag("label")
    breakers = [run.samples["broken_by"].to_pylist() for run in runs]
    clean = [run.flag("clean_correct") for run in runs]
    return [
        {
            "id": int(ids[row]),
            "label": int(labels[row]),
            **{
                run.letter: "robust" if robust[i, row] else breakers[i][row] if clean[i][row] else "wrong"
                for i, run in enumerate(runs)
            },
        }
        for row in np.flatnonzero(robust.any(0) & ~robust.all(0)).tolist()
    ]


def _pair(one: Compared, other: Compared, seed: int) -> dict[str, Any]:
    mine, theirs = one.flag("robust"), other.flag("robust")
    ids = one.flag("id")
    return {
        "first": one.letter,
        "second": other.letter,
        "clean": paired(one.flag("clean_correct"), other.flag("clean_correct"), seed=seed),
        "robust": paired(mine, theirs, seed=seed),
        "at": _at(one, other, seed),
        "by_class": _by_class(one, other),
        "by_stage": [*_by_stage(one, theirs), *_by_stage(other, mine)],
        "only": {one.letter: ids[mine & ~theirs].tolist(), other.letter: ids[~mine & theirs].tolist()},
    }


def _at(one: Compared, other: Compared, seed: int) -> list[dict[str, Any]]:
    """Return the comparison at every radius that both know, but for the one that both are quoted at."""
    threats = [run.results["threat"] for run in (one, other)]
    if any(threats[0].get(key) != threats[1].get(key) for key in ("norm", "goal", "region")):
        return []
    common, quoted = set(one.radii) & set(other.radii), {largest(threat["eps"]) for threat in threats}
    common = sorted(common - quoted if len(quoted) == 1 else common)
    return [{"eps": eps, **paired(_robust_at(one, eps), _robust_at(other, eps), seed=seed)} for eps in common]


def _robust_at(run: Compared, eps: float) -> np.ndarray:
    return robust_at(run.samples, eps, run.folder.run["plan"]["point"])


def _by_class(one: Compared, other: Compared) -> list[dict[str, Any]]:
    """Return who is robust on each class that has images, in their order, with p-values adjusted for being many."""
    labels = one.flag("label")
    names = one.folder.run["model"].get("class_names") or other.folder.run["model"].get("class_names")
    rows = []
    for label in np.unique(labels).tolist():
        mine, theirs = (run.flag("robust")[labels == label] for run in (one, other))
        c = counts(mine, theirs)
        rows.append(
            {
                "class": label,
                **({} if names is None else {"name": names[label]}),
                "n": c.n,
                "first": rate(mine)["value"],
                "second": rate(theirs)["value"],
                "only_first": c.only_first,
                "only_second": c.only_second,
                "p": mcnemar(c),
            }
        )
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
    return rows


def _by_stage(run: Compared, other_robust: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield, of the images that each stage of a run broke, how many the other run survives."""
    breaker = np.array(run.samples["broken_by"].to_pylist(), dtype=object)
    wrong = ~run.flag("clean_correct")
    stages = {"wrong without attack": wrong, **{stage: breaker == stage for stage in run.folder.stages[1:]}}
    for stage, fell in stages.items():
        yield {
            "run": run.letter,
            "stage": stage,
            "fell": int(np.count_nonzero(fell)),
            "other_survives": int(np.count_nonzero(fell & other_robust)),
        }


def _entry(run: Compared) -> dict[str, Any]:
    results = run.results
    return {
        "run": run.letter,
        "folder": str(run.folder.path),
        "fingerprint": results["fingerprint"],
        "model": results["model"]["name"],
        "attack": results["attack"]["name"],
        "threat": results["threat"],
        "clean": rate(run.flag("clean_correct")),
        "robust": results["robust"]["accuracy"],
        "failed_checks": flagged(results),
    }


def _same_images(first: Compared, run: Compared) -> None:
    mine, theirs = first.flag("id"), run.flag("id")
    if mine.tolist() == theirs.tolist():
        if first.folder.run["digests"]["dataset"] == run.folder.run["digests"]["dataset"]:
            return
        what = "their ids are the same but not their content or labels (the dataset's digest differs)"
    else:
        common = len(np.intersect1d(mine, theirs))
        what = (
            f"{len(theirs)} of {run.results['dataset']['name']} there and {len(mine)} of "
            f"{first.results['dataset']['name']} here, {common} ids in common"
        )
    raise UserError(
        f"{run.folder.path} and {first.folder.path} are not about the same images: {what}; evaluate both with the same "
        "dataset, dataset.n and seed"
    )


def _letter(number: int) -> str:
    """Return A, B, ... Z, AA, AB, ..."""
    more, last = divmod(number, 26)
    return (_letter(more - 1) if more else "") + chr(ord("A") + last)
