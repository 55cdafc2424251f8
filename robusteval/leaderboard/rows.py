"""One line of a leaderboard: a complete run of ours, or a published entry."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from robusteval.errors import UserError
from robusteval.evidence.folder import SCHEMA, RunFolder
from robusteval.leaderboard import protocol
from robusteval.metrics.accuracy import wilson
from robusteval.published import robustbench
from robusteval.published.robustbench import Entry


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a leaderboard says of one model. Accuracies are fractions; ``low`` and ``high`` the 95 % Wilson interval.

    ``by`` names the attack that the accuracy is of, "external" where RobustBench quotes another than AutoAttack.
    ``differences`` are sentences on what departs from the board's protocol; a row that is not ``comparable`` has no
    rank. ``doubts`` are what makes the number itself doubtful (failed checks): a dagger. ``disagrees`` says how a run
    of a zoo's model departs from its own published entry.
    """

    name: str
    origin: Literal["ours", "robustbench"]
    dataset: str
    norm: str
    eps: float | None
    clean: float | None
    robust: float
    low: float
    high: float
    n: int
    by: str
    comparable: bool = True
    differences: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    disagrees: tuple[str, ...] = ()
    run: RunFolder | None = None
    results: dict[str, Any] | None = field(default=None, repr=False)
    entry: Entry | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """All that is to be said of the row, the most serious first."""
        return (*self.disagrees, *self.doubts, *self.differences)

    @property
    def marks(self) -> str:
        """† where the number is doubtful, ≠ where it departs from its own published entry."""
        return "†" * bool(self.doubts) + "≠" * bool(self.disagrees)


def of_entry(entry: Entry) -> Row:
    """Return the row of a published entry."""
    n = robustbench.IMAGES[entry.dataset]
    robust = entry.accuracy / 100
    low, high = wilson(round(robust * n), n)
    usual = protocol.of(entry.dataset, entry.threat)
    differences, lower = [], entry.accuracy < (entry.autoattack_acc or 0)
    if lower:
        differences.append(f"external; AutoAttack {entry.autoattack_acc:.2f} %")
    if entry.eps is not None and usual is not None and entry.radius != usual.eps:
        differences.append(f"eps {entry.eps}, not {usual.written}")
    doubts = ("AutoAttack unreliable, says RobustBench",) if entry.unreliable else ()
    return Row(
        name=entry.name,
        origin="robustbench",
        dataset=entry.dataset,
        norm=entry.threat.lower(),
        eps=None if usual is None else entry.radius,
        clean=entry.clean_acc / 100,
        robust=robust,
        low=low,
        high=high,
        n=n,
        by="external" if lower else "corruptions" if usual is None else "AutoAttack",
        differences=tuple(differences),
        doubts=doubts,
        entry=entry,
    )


def of_run(run: RunFolder) -> Row:
    """Return the row of a complete run. Raises UserError where its files cannot be used."""
    results = run.results()
    if results.get("schema") != SCHEMA:
        raise UserError(
            f"{run.results_file} has schema {results.get('schema')}, this version reads {SCHEMA}; use the version that "
            "wrote it"
        )
    threat, rate = results["threat"], results["robust"]["accuracy"]
    eps = threat["eps"]
    facts = protocol.facts(run, results)
    usual = protocol.board_of(facts)
    entry = None if facts.zoo is None else robustbench.find(*facts.zoo, results["model"]["name"])
    hard, soft = protocol.differences(facts, usual, results)
    failed = [check["id"] for check in results["checks"] if check["verdict"] == "fail"]
    return Row(
        name=results["model"]["name"],
        origin="ours",
        dataset=facts.family,
        norm=threat["norm"],
        eps=eps[-1] if isinstance(eps, list) else eps,
        clean=results["clean"]["accuracy"]["value"],
        robust=rate["value"] or 0.0,
        low=rate["low"],
        high=rate["high"],
        n=rate["n"],
        by=results["attack"]["name"],
        comparable=not hard,
        differences=(*hard, *soft),
        doubts=(f"failed checks: {', '.join(failed)}",) if failed else (),
        disagrees=() if entry is None or usual is None else protocol.disagreements(facts, usual, results, entry),
        run=run,
        results=results,
        entry=entry,
    )


def robust_flags(row: Row) -> dict[int, bool] | None:
    """Return whether each image stands, by its id; None of a published entry."""
    if row.run is None:
        return None
    table = row.run.samples()
    robust = table["robust"].to_numpy(zero_copy_only=False).astype(bool)
    return dict(zip(np.asarray(table["id"]).tolist(), robust.tolist(), strict=True))
