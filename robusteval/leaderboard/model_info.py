"""One run in the form of RobustBench's model_info/DATASET/THREAT/NAME.json."""

import json

from robusteval.errors import UserError
from robusteval.leaderboard.rows import Row
from robusteval.published import robustbench
from robusteval.report.words import hundredths, radius


def model_info(row: Row) -> str:
    """Return the JSON. What no run can know (title, authors, link, venue ...) is null, for the submitter to fill in;
    of a model of the zoo its own entry knows most of it. The footnote says how the number came about.

    Raises UserError for a run that is not comparable with a published board: its number has no place there.
    """
    board = robustbench.THREATS.get(row.norm)
    if row.results is None or (row.dataset, board) not in robustbench.boards() or not row.comparable:
        why = "; ".join(row.differences) or f"no board is of {row.dataset} and {row.norm}"
        raise UserError(
            f"{row.name} has no place in RobustBench's form ({why}); run attack=autoattack at the radius and on the "
            "images of one of its boards"
        )
    entry, draws = row.entry, (row.run.run if row.run else {}).get("draws", 1)
    content = {
        "link": entry and entry.link,
        "name": entry and entry.title,
        "authors": None,
        "additional_data": entry and entry.additional_data,
        "number_forward_passes": entry.number_forward_passes if entry else draws,
        "dataset": row.dataset,
        "venue": entry and entry.venue,
        "architecture": entry and entry.architecture,
        "eps": radius(row.eps),
        "clean_acc": hundredths(row.clean),
        "reported": None,
        "autoattack_acc": hundredths(row.robust),
        "footnote": _footnote(row),
        "unreliable": bool(row.doubts),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _footnote(row: Row) -> str:
    results = row.results or {}
    version = results.get("provenance", {}).get("robusteval", "")
    made = f"robusteval {version}".strip()
    interval = f"95 % interval {100 * row.low:.2f} to {100 * row.high:.2f} % of n={row.n}"
    return "; ".join([f"{made}, {row.by}, run {results.get('fingerprint', '')}", interval, *row.notes])
