"""``robusteval report RUN|DIR``: one HTML file that holds everything it shows."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from robusteval.errors import UserError
from robusteval.evidence.folder import RunFolder
from robusteval.report.page import folder, run
from robusteval.report.runs import begun, complete_runs, readable


def main(argv: Sequence[str]) -> int:
    """Write the page of a run, or of a folder of runs and of each run in it that has none; print where it is."""
    parser = argparse.ArgumentParser(
        prog="robusteval report", description="One self-contained HTML page of a run, or of a folder of runs."
    )
    default = Path(os.environ.get("ROBUSTEVAL_RUNS") or "runs")
    parser.add_argument(
        "directory", nargs="?", type=Path, default=default, metavar="RUN|DIR", help=f"a run or runs ({default})"
    )
    directory = parser.parse_args(argv).directory
    if (directory / "run.json").is_file():
        one = RunFolder.open(directory)
        print(run.write(one, readable(one), one.samples()))
        return 0
    complete, faults = complete_runs(directory)
    left = len(begun(directory)) - len(complete) - len(faults)
    if not complete and not faults:
        raise UserError(f"{directory} holds no complete run; see robusteval status {directory}")
    for one, results in complete:
        if not one.report.is_file():
            try:
                run.write(one, results, one.samples())
            except UserError as error:  # its row is shown all the same
                faults.append(str(error))
    print(folder.write(directory, complete, left))
    if faults:
        raise UserError("; ".join(faults))
    return 0
