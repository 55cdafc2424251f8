"""The pages in a real browser: nothing is asked for, nothing complains, nothing is cut off, and tables sort."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robusteval.evidence.folder import RunFolder
from robusteval.metrics import survey as surveys
from robusteval.report.gallery import Example, write_examples
from robusteval.report.page import command
from robusteval.report.page.html import count
from tests.report.browser import Browser, browser, installed

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(installed() is None, reason="no Chromium is installed: apt-get install chromium"),
]

EVIL = "<script>alert(1)</script>"
SIZES = [(390, 844), (1280, 800)]
LONG = "an_architecture_with_a_very_long_name_and_no_blank_in_it_" * 3


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def pages(make_run: Callable[..., RunFolder], make_results: Callable[..., dict[str, Any]]) -> dict[str, Path]:
    """Return the pages of a run with every section, of one with hostile and overlong names, and of their folder."""
    rate = {"value": 0.25, "low": 0.2, "high": 0.31, "correct": 60, "n": 240}
    correct = np.random.default_rng(0).random((240, 257)) < 0.7
    survey = surveys.survey(correct, surveys.thresholds(), np.ones(240, bool), exhaustive=True)
    curve = [{"eps": eps / 255, **rate, "value": 0.9 - eps / 20} for eps in (2, 4, 8)]
    rows = [{"class": k, "name": f"class {k:02}", **rate, "value": (k * 7 % 30) / 30, "n": 985 + k} for k in range(30)]
    whole = make_run(
        "whole",
        robust={**make_results()["robust"], "curve": curve, "per_class": rows},
        clean={**make_results()["clean"], "per_class": rows},
        survey={"exhaustive": True, **survey},
        threat={"norm": "linf", "eps": [2 / 255, 4 / 255, 8 / 255], "goal": "top1", "region": None},
    )
    evil = make_run(
        "evil",
        model={"name": EVIL, "source": "python", "digest": "", "class_names": [f"{LONG}{k}" for k in range(10)]},
        dataset={"name": LONG, "n": 240, "digest": "bb"},
        attack={"name": LONG, "steps": LONG},
        checks=[{"id": "gradient", "verdict": "fail", "summary": LONG}],
        provenance={"command": f"robusteval {LONG}", "platform": LONG},
    )
    image = np.random.default_rng(0).random((3, 28, 28), dtype=np.float32)
    example = {"label": 0, "clean": image, "attacked": image, "clean_prediction": 0, "attacked_prediction": 1}
    for made in (whole, evil):
        shown = [Example(id=5 * k, **example, clean_confidence=1, attacked_confidence=1) for k in range(8)]
        write_examples(made.figures / "examples", shown)
    assert command.main([str(whole.path.parent)]) == 0
    return {"whole": whole.report, "evil": evil.report, "folder": whole.path.parent / "report.html"}


@pytest.mark.parametrize("size", SIZES)
def test_pages_ask_for_nothing_complain_of_nothing_and_fit(
    pages: dict[str, Path], chromium: Browser, size: tuple[int, int]
) -> None:
    for name, page in pages.items():
        for dark in (False, True):
            chromium.open(page, *size, dark=dark)
            assert chromium.run("document.querySelectorAll('details').forEach(d => d.open = true) || 1") == 1
            assert chromium.run("document.documentElement.scrollWidth") <= size[0], name
            assert [url for url in chromium.requests if not url.startswith("data:")] == [page.as_uri()]
            assert chromium.complaints == []
            assert chromium.run("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


def test_hostile_names_stay_text_and_the_policy_stops_what_would_not(pages: dict[str, Path], chromium: Browser) -> None:
    chromium.open(pages["evil"], *SIZES[1])
    assert chromium.run("document.querySelector('h1').textContent") == EVIL
    assert chromium.run("document.scripts.length") == 1
    # Were a name ever written unescaped, the page's own policy would still keep it from running or calling out.
    chromium.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"http://127.0.0.1:9/x\" onerror=\"hit = 1\">')"
    )
    chromium.run("new Promise(done => setTimeout(done, 200))")
    assert chromium.run("typeof hit") == "undefined"
    chromium.call("Page.getLayoutMetrics")
    assert any("Content Security Policy" in said for said in chromium.complaints)


def test_tables_sort_by_mouse_and_by_keyboard(pages: dict[str, Path], chromium: Browser) -> None:
    chromium.open(pages["whole"], *SIZES[1])
    table = "[...document.querySelectorAll('#classes details table')].at(-1)"
    chromium.run("document.querySelectorAll('details').forEach(d => d.open = true)")

    def column(number: int) -> list[str]:
        return json.loads(
            chromium.run(f"JSON.stringify([...{table}.tBodies[0].rows].map(r => r.cells[{number}].textContent))")
        )

    def order(number: int) -> str | None:
        return chromium.run(f"{table}.tHead.rows[0].cells[{number}].getAttribute('aria-sort')")

    assert order(3) is None
    values = [float(text.removesuffix(" %")) for text in column(3)]
    assert values == sorted(values)
    chromium.run(f"{table}.tHead.rows[0].cells[3].querySelector('button').click()")
    assert order(3) == "descending"
    assert [float(text.removesuffix(" %")) for text in column(3)] == sorted(values, reverse=True)
    # Counts are parted by a narrow space, so a sort by their text would be wrong.
    chromium.run(f"{table}.tHead.rows[0].cells[1].querySelector('button').focus()")
    for kind in ("keyDown", "keyUp"):
        chromium.call(
            "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
        )
    assert (order(3), order(1)) == (None, "descending")
    assert column(1) == [count(1014 - k) for k in range(30)]
    chromium.run(f"{table}.tHead.rows[0].cells[0].querySelector('button').click()")
    assert order(0) == "ascending"
    assert column(0) == [f"class {k:02}" for k in range(30)]


def test_dark_mode_is_dark_and_light_is_light(pages: dict[str, Path], chromium: Browser) -> None:
    shade = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3"
    ink = shade.replace("backgroundColor", "color")
    for dark in (False, True):
        chromium.open(pages["folder"], *SIZES[0], dark=dark)
        paper, text = chromium.run(shade), chromium.run(ink)
        assert (paper < 60 and text > 200) if dark else (paper > 200 and text < 60)
