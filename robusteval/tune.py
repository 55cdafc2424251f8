"""``robusteval tune``: measures how fast the model's forms are, and names the fastest."""

from collections.abc import Sequence

import torch
from rich.table import Table

from robusteval.compose import composed
from robusteval.config import build
from robusteval.datasets.checks import check
from robusteval.engine import oracle, selftest
from robusteval.engine.devices import devices_of
from robusteval.engine.session import load, opened
from robusteval.missing import refuse_missing
from robusteval.report.console import terminal


def main(argv: Sequence[str]) -> int:
    """Print a table of the forms of the model that the overrides name; return 0."""
    if any(flag in argv for flag in ("-h", "--help")):
        print("usage: robusteval tune [model=… dataset=… attack=… engine.slots=…]\n\n" + str(__doc__))
        return 0
    config = build(composed(list(argv), None))
    refuse_missing(config)
    classifier, dataset = load(config)
    device = devices_of(config.runtime.device, 1, torch.cuda.device_count())[0]
    with opened(config, classifier, dataset, device, config.runtime.threads) as session:
        check(dataset, classifier, session.first)
        selftest.check_answer(classifier, session.passes, session.first)
        labels = torch.from_numpy(dataset.labels[: len(session.first)]).to(session.device)
        gradients = any(stage.attack.gradients for stage in session.stages)
        tried = {
            form: oracle.try_form(session.passes, session.first, form, gradients=gradients) for form in oracle.FORMS
        }
        served = [choice for choice in tried.values() if isinstance(choice, oracle.Choice)]
        seconds = {
            choice.form: taken
            for choice, taken in oracle.timed(session.passes, served, session.first, labels, gradients=gradients)
        }
    batch = session.passes.batch
    kind = "forward and backward" if gradients else "forward"
    table = Table(title=f"{config.model_name}, {kind}, {batch} images a pass, {device}", title_justify="left")
    for name in ("engine.oracle", "ms a pass", "speed", "difference"):
        table.add_column(name, justify="left" if name == "engine.oracle" else "right")
    for form, choice in tried.items():
        if isinstance(choice, oracle.Choice):
            speed = seconds["given"] / seconds[form]
            table.add_row(form, f"{1000 * seconds[form]:.2f}", f"{speed:.2f}x", f"{choice.difference:.1e}")
        else:
            table.add_row(form, "–", "–", "–")
    console = terminal()
    console.print(table)
    for form, choice in tried.items():
        if isinstance(choice, str):
            console.print(f"{form}: {choice}")
    fastest = min(seconds, key=lambda form: seconds[form])
    console.print(f"fastest here: engine.oracle={fastest} (engine.oracle=auto measures at the start of each run)")
    return 0
