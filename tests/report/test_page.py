"""The page of a run as text: whole, self-contained, escaped, and with the numbers of the results."""

import base64
import hashlib
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from robusteval.errors import UserError
from robusteval.evidence.folder import RunFolder
from robusteval.metrics import survey as surveys
from robusteval.report.gallery import Example, write_examples
from robusteval.report.page import command, run, sections
from robusteval.report.page.html import count
from robusteval.report.page.material import Material
from robusteval.report.page.sections import SECTIONS
from robusteval.report.page.svg import Scale, tag
from robusteval.report.words import interval, number, percent

MakeRun = Callable[..., RunFolder]
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """What a page holds; closing tags that do not fit are faults."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.inline: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("style", "script"):
            self.inline[self.open[-1]] = data
        else:
            self.words += data

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, attributes in self.elements if (value := attributes.get(name)) is not None]

    def has(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def written(folder: RunFolder) -> tuple[str, Page]:
    assert command.main([str(folder.path)]) == 0
    text = folder.report.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture
def evil(make_run: MakeRun) -> RunFolder:
    """Return a run in which every name that comes from outside is an attack on the page."""
    names = [f"{EVIL}{k}" for k in range(10)]
    made = make_run(
        "evil",
        model={"name": EVIL, "source": "python", "digest": EVIL, "class_names": names},
        dataset={"name": EVIL, "n": 240, "digest": "bb"},
        attack={"name": EVIL, EVIL: EVIL},
        checks=[{"id": EVIL, "verdict": verdict, "summary": EVIL} for verdict in ("fail", "warn", "pass", "skipped")],
        provenance={"command": EVIL, "packages": {EVIL: EVIL}, "platform": EVIL},
        parts=[{"name": EVIL, "accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}, "broken": 3, "alone": 1,
                "cost": {"forward_passes": 1, "backward_passes": 1}}],
    )  # fmt: skip
    clean = np.full((1, 8, 8), 0.5, dtype=np.float32)
    write_examples(made.figures / "examples", [
        Example(id=5, label=0, clean=clean, attacked=clean + 0.05, clean_prediction=0, attacked_prediction=1,
                clean_confidence=1, attacked_confidence=1)
    ])  # fmt: skip
    return made


def self_contained(text: str, page: Page) -> None:
    assert page.faults == []
    assert page.open == []
    sources = [*page.attributes("src"), *(link["href"] or "" for link in page.has("link"))]
    assert all(source.startswith("data:") for source in sources)
    assert page.attributes("style") == page.attributes("onclick") == page.attributes("onerror") == []
    assert len(page.has("script")) == len(page.has("style")) == 1
    assert "http://" not in text
    assert "https://" not in text
    assert not re.search(r"url\(|@import|@font-face", page.inline["style"])
    (policy,) = [meta["content"] or "" for meta in page.has("meta") if meta.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.inline[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert all(link[1:] in ids for link in page.attributes("href") if link.startswith("#"))


def test_a_page_holds_the_numbers_and_needs_nothing(make_run: MakeRun) -> None:
    folder = make_run("plain")
    text, page = written(folder)
    self_contained(text, page)
    results = folder.results()
    robust, clean = results["robust"]["accuracy"], results["clean"]["accuracy"]
    for shown in (
        percent(robust["value"]),
        interval(robust),
        f"{robust['correct']} of {robust['n']}",
        percent(clean["value"]),
        interval(clean),
        number(results["clean"]["calibration"]["ece"]),
        number(results["attacked"]["confidence"]["auroc"]),
        "4\u202f521",
        "robusteval verify plain",
        "linf 8/255, top1",
    ):
        assert shown in page.words, shown
    assert "†" not in page.words
    assert len(text) < 200_000


def test_only_what_a_run_has_is_shown(make_run: MakeRun) -> None:
    shown = {"rates", "stages", "classes", "calibration", "confidence", "checks", "cost", "reproduce"}
    names = {section.id for section in SECTIONS}
    _, page = written(make_run("plain"))
    assert set(page.attributes("id")) & names == shown
    rate = {"value": 0.25, "low": 0.2, "high": 0.31, "correct": 60, "n": 240}
    results = make_run("other").results()
    robust = {**results["robust"], "curve": [{"eps": eps, **rate} for eps in (4 / 255, 8 / 255)]}
    correct = np.random.default_rng(0).random((240, 257)) < 0.7
    survey = surveys.survey(correct, surveys.thresholds(), np.ones(240, bool), exhaustive=True)
    more = make_run(
        "more",
        robust=robust,
        survey={"exhaustive": True, **survey},
        threat={"norm": "linf", "eps": [4 / 255, 8 / 255], "goal": "top1", "region": None},
    )
    text, page = written(more)
    self_contained(text, page)
    assert set(page.attributes("id")) & names == {*shown, "over_eps", "survey"}
    assert "after 10 tries: " in page.words


def test_the_waterfall_falls_from_all_images_to_the_robust_ones(make_run: MakeRun) -> None:
    folder = make_run("plain")
    results = folder.results()
    stages = [{"stage": "a", "entered": 237, "broken": 100}, {"stage": "b", "entered": 137, "broken": 25}]
    results["robust"]["by_stage"] = stages
    found = sections.stages(Material(folder=folder.path, facts={}, results=results, samples=folder.samples()))
    assert found is not None
    ends = [(round(row["begin"] * 240, 9), round(row["end"] * 240, 9)) for row in found["rows"]]
    assert ends == [(240, 237), (237, 137), (137, 112)]
    assert found["left"] == results["robust"]["accuracy"]["correct"] == 112


def test_names_stay_text(evil: RunFolder) -> None:
    text, page = written(evil)
    self_contained(text, page)
    assert "gallery" in page.attributes("id")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert page.words.count(EVIL) > 20
    assert all(EVIL not in name for _, attributes in page.elements for name in attributes)


def test_a_failed_check_marks_the_number_and_says_why(make_run: MakeRun) -> None:
    checks = [{"id": "gradient_zero", "verdict": "fail", "summary": "gradients are zero"}]
    folder = make_run("flagged", checks=checks)
    _, page = written(folder)
    assert f"{percent(folder.results()['robust']['accuracy']['value'])}†" in page.words
    assert "† gradient_zero. gradients are zero" in page.words
    assert command.main([str(folder.path.parent)]) == 0
    assert "†" in Page((folder.path.parent / "report.html").read_text(encoding="utf-8")).words


def test_a_stopped_run_says_so_and_a_check_says_what_to_do(make_run: MakeRun) -> None:
    stopped = {"rule": {"below": 0.5}, "reached": "below", "evaluated": 240, "planned": 5000, "interval": ""}
    checks = [{"id": "logits", "verdict": "warn", "summary": "odd", "advice": "return logits"}]
    _, page = written(make_run("stopped", stopped=stopped, checks=checks))
    assert "240 of 5000 images in random order, stopped since it is below 50.0 %" in page.words
    assert "hold at any time" in page.words
    assert "What to do: return logits" in page.words
    assert "1 to read" in page.words


def test_examples_are_the_pixels_of_the_run(evil: RunFolder) -> None:
    _, page = written(evil)
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))
        for source in page.attributes("src")
    ]
    assert [int(picture[0, 0]) for picture in pictures] == [128, 140, 255]
    assert "difference × 10" in page.words


def test_a_page_of_large_examples_leaves_some_out(make_run: MakeRun, samples: pa.Table) -> None:
    folder = make_run("large")
    noise = np.random.default_rng(0).random((8, 3, 224, 224), dtype=np.float32)
    write_examples(folder.figures / "examples", [
        Example(id=5 * k, label=0, clean=image, attacked=image, clean_prediction=0, attacked_prediction=1,
                clean_confidence=1, attacked_confidence=1)
        for k, image in enumerate(noise)
    ])  # fmt: skip
    text, page = written(folder)
    assert 0 < len(page.has("img")) < 24
    assert len(text) < 3_000_000


def test_a_thousand_images_of_a_thousand_classes_make_a_small_page(
    make_run: MakeRun, make_results: Callable[..., dict[str, Any]]
) -> None:
    results = make_results()
    rate = {"value": 0.0, "low": 0.0, "high": 0.79, "correct": 0, "n": 1}
    rows = [{"class": k, "name": f"a class with a long name, number {k}", **rate} for k in range(1000)]
    folder = make_run("wide", robust={**results["robust"], "per_class": rows},
                      clean={**results["clean"], "per_class": rows})  # fmt: skip
    text, page = written(folder)
    assert len(text.encode()) < 1_200_000
    assert len(page.has("details")) == 3
    self_contained(text, page)


def test_nothing_to_show_is_no_error(make_run: MakeRun, samples: pa.Table) -> None:
    one = make_run("one", table=samples.slice(0, 1), checks=[])
    text, page = written(one)
    self_contained(text, page)
    assert "classes" not in page.attributes("id")


def test_the_folder_page_links_to_runs_that_it_makes_pages_for(make_run: MakeRun, evil: RunFolder) -> None:
    plain = make_run("b plain")
    damaged = make_run("c damaged")
    damaged.results_file.write_text('{"schema": 2}')
    empty = make_run("e empty")
    empty.samples_file.unlink()
    unfinished = make_run("d unfinished")
    unfinished.results_file.unlink()
    directory = plain.path.parent
    with pytest.raises(UserError, match=r"has schema 2.*samples.parquet is missing"):
        command.main([str(directory)])
    text = (directory / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    self_contained(text, page)
    assert "b%20plain/report.html" in page.attributes("href")
    assert plain.report.is_file()
    assert evil.report.is_file()
    assert "3 complete runs, 1 not complete" in page.words
    assert page.words.count(EVIL) >= 4


def test_what_has_no_page_is_told(make_run: MakeRun) -> None:
    unfinished = make_run("unfinished")
    unfinished.results_file.unlink()
    with pytest.raises(UserError, match="not complete"):
        command.main([str(unfinished.path)])
    with pytest.raises(UserError, match="no complete run"):
        command.main([str(unfinished.path.parent)])
    with pytest.raises(UserError, match="not a folder"):
        command.main([str(unfinished.path / "nowhere")])


def test_a_page_is_the_same_twice(make_run: MakeRun) -> None:
    folder = make_run("plain")
    first, _ = written(folder)
    material = Material(folder=folder.path, facts=folder.run, results=folder.results(), samples=folder.samples())
    assert run.page(material) == first


def test_drawings_escape_and_scale() -> None:
    assert tag("text", EVIL, class_=EVIL, x=1.50) == tag("text", EVIL, class_=EVIL, x=1.5)
    assert "<script>" not in tag("text", EVIL, class_=EVIL)
    scale = Scale(0, 10, 100, 0)
    assert [scale(value) for value in (0, 5, 10)] == [100, 50, 0]
    assert Scale(3, 3, 7, 9)(3) == 7
    assert count(1234567) == "1\u202f234\u202f567"
