"""The page of a run."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from markupsafe import Markup

from robusteval.evidence import atomic
from robusteval.evidence.folder import RunFolder
from robusteval.report.flags import flagged
from robusteval.report.page.html import environment, render
from robusteval.report.page.material import Material
from robusteval.report.page.sections import SECTIONS
from robusteval.report.words import stopped_in_words, threat_in_words


def write(run: RunFolder, results: Mapping[str, Any], samples: pa.Table) -> Path:
    """Write the page of a run into its folder and return its path."""
    atomic.write(run.report, page(Material(folder=run.path, facts=run.run, results=results, samples=samples)).encode())
    return run.report


def page(material: Material) -> str:
    """Return the page of a run."""
    results, shown = material.results, []
    for section in SECTIONS:
        values = section.content(material)
        if values is not None:
            template = environment().get_template(f"sections/{section.id}.html")
            shown.append((section, Markup(template.render(**values))))
    return render(
        "run.html",
        title=f"{results['model']['name']} on {results['dataset']['name']} under {results['attack']['name']}",
        results=results,
        threat=threat_in_words(results["threat"]),
        stopped=stopped_in_words(results["stopped"]) if "stopped" in results else None,
        flagged=flagged(results),
        verdicts=Counter(check["verdict"] for check in results["checks"]),
        failed=[check for check in results["checks"] if check["verdict"] == "fail"],
        sections=shown,
    )
