"""Templates to pages: everything is escaped, and a policy in the page itself forbids whatever was not written here."""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from robusteval import __version__
from robusteval.report import words
from robusteval.report.page import bars


@cache
def environment() -> Environment:
    """Return the templates of this package: autoescaped, and strict about names that nobody gave."""
    made = Environment(
        loader=PackageLoader("robusteval.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        words.percent,
        words.interval,
        words.number,
        words.radius,
        words.seconds,
        words.points,
        words.hundredths,
    ):
        made.filters[function.__name__] = function
    made.filters["count"] = count
    made.globals |= {"bar": bars.bar, "fall": bars.fall, "version": __version__, "NOTHING": words.NOTHING}
    return made


def render(template: str, **values: Any) -> str:
    """Return the page of a template. ``values`` are escaped unless they are Markup."""
    style, script = _part("style.css"), _part("sort.js")
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    page = environment().get_template(template)
    return page.render(**values, style=Markup(style), script=Markup(script), policy=policy)


def count(value: float) -> str:
    """Return a whole number in groups of three digits, parted by a narrow space."""
    return f"{value:,.0f}".replace(",", "\u202f")


def _part(name: str) -> str:
    return (files("robusteval.report.page") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return how a content security policy names a text, so that no other style or script runs in the page."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
