"""report.html: self-contained, safe whatever the data says, small whatever the run's length, and drawn with finite
numbers.
"""

from __future__ import annotations

import dataclasses
import math
import random
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.output import ClassScore, EventLog, Pairs, Result, Sample
from finetune_trainer.output.page.charts import Curve, chart, smooth, thin, ticks
from finetune_trainer.output.page.folds import losses_of_folds
from finetune_trainer.output.page.numbers import number
from finetune_trainer.output.page.page import html_report
from finetune_trainer.output.result import Folds
from finetune_trainer.tasks.base import JobFacts
from output.cases import chat, classification, config, events

VOID = {"meta", "br", "wbr"}
EVIL = [
    "<script>alert(1)</script>",
    '"><img src=https://evil.example/x onerror=alert(1)>',
    "</style><script>",
    "&lt;b&gt;",
    "']]>--><svg onload=x>",
]


class Page(HTMLParser):
    """Collects tags and attributes, and checks that tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data + " "


def assert_fetches_nothing(text: str) -> Page:
    page = Page(text)
    for tag, attrs in page.tags:
        assert tag not in (
            "script",
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "base",
            "form",
            "video",
            "audio",
            "use",
            "image",
        ), tag
        for name, value in attrs.items():
            assert name not in ("src", "href", "xlink:href", "srcset", "action", "background", "poster", "data"), (
                tag,
                name,
            )
            assert not name.startswith("on"), (tag, name)
            assert "url(" not in (value or ""), (tag, name)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return page


@pytest.mark.parametrize(
    "result",
    [
        classification(),
        chat(),
        Result(config(), classification().report.model_copy(update={"test": None, "evaluation": None})),
    ],
)
def test_the_page_stands_alone_and_says_the_main_things(result: Result) -> None:
    page = assert_fetches_nothing(html_report(result, list(events())))
    for said in (
        result.title,
        result.base,
        "Loss",
        "Learning rate",
        "Values in force",
        "globalBatchSize",
        "Checkpoints",
    ):
        assert said in page.text, said
    for name, value in result.metrics.items():
        if not name.endswith(("-low", "-high")):
            assert f"{value:.3f}" in page.text
    if not result.metrics:
        assert "No rows were held out" in page.text


def test_the_columns_in_force_are_shown() -> None:
    assert "text: body, label: kind" in Page(html_report(classification(), [])).text


def test_metrics_come_with_their_interval_and_rows() -> None:
    text = Page(html_report(classification(), [])).text
    assert "95 %: 0.948 to 0.973" in text
    assert "on 1,000 test rows" in text
    assert "best 0.965, step 450" in Page(html_report(classification(), list(events()))).text


@pytest.mark.parametrize("evil", EVIL)
def test_texts_of_data_and_configuration_cannot_become_markup(evil: str) -> None:
    base = classification()
    data = base.report.data.model_copy(
        update={
            "labels": (evil, "x"),
            "findings": tuple(
                f.model_copy(update={"kind": evil, "message": evil, "file": evil}) for f in base.report.data.findings
            ),
        }
    )
    checkpoints = tuple(
        c.model_copy(update={"uri": evil, "digest": evil, "metrics": {evil: 1.0}}) for c in base.report.checkpoints
    )
    report = base.report.model_copy(update={"data": data, "checkpoints": checkpoints, "test": {evil: 0.5}})
    settings = base.config.model_copy(update={"job": base.config.job.model_copy(update={"name": evil})})
    result = dataclasses.replace(
        base,
        config=settings,
        report=report,
        facts=JobFacts({}, (evil, "x")),
        classes=(ClassScore(evil, 1, 1, 1, 1),),
        samples=(Sample(evil, evil, evil, evil),),
        notes=(evil,),
        versions={evil: evil},
        attempts=({"number": evil, "seconds": {evil: 1.0}},),
    )
    log = EventLog()
    log.add("evaluation", 1, metrics={evil: 0.5})
    page = assert_fetches_nothing(html_report(result, list(log)))
    assert evil in " ".join(page.text.split()) or evil in page.text


def test_a_long_run_with_many_classes_stays_below_a_megabyte() -> None:
    rng = random.Random(1)
    labels = tuple(f"class {i} " + "x" * 240 for i in range(256))
    result = classification(
        facts=JobFacts({}, labels),
        classes=tuple(ClassScore(label, 0.5, 0.5, 0.5, 9) for label in labels),
        notes=("n" * 5000,) * 50,
        confusion=tuple(tuple(rng.randrange(9) for _ in labels) for _ in labels),
        samples=(Sample("p" * 100_000, "b" * 100_000, "a" * 100_000),) * 60,
        attempts=tuple({"number": i, "lastStep": i, "seconds": {"train": 1.0 * i}} for i in range(500)),
    )
    text = html_report(result, list(events(steps=20_000, every=10)))
    assert len(text.encode()) < 1_000_000
    page = assert_fetches_nothing(text)
    assert "196 more classes are in metrics.json" in page.text
    assert "more characters" in page.text
    assert "40 more samples are left out" in page.text
    assert "Most frequent mistakes" in page.text


def test_empty_and_single_point_runs_are_drawn() -> None:
    assert_fetches_nothing(html_report(classification(attempts=(), confusion=None, classes=()), []))
    log = EventLog()
    log.add("step", 1, loss=0.5, learningRate=0.0)
    log.add("step", 2, loss=float("nan"), learningRate=0.0)
    assert_fetches_nothing(html_report(classification(), list(log)))


numbers = st.floats(-1e9, 1e9, allow_nan=False)


@given(st.lists(st.tuples(st.integers(0, 10**7), numbers), max_size=60), st.booleans())
def test_charts_have_finite_coordinates_within_the_figure(points: list[tuple[float, float]], faint: bool) -> None:
    points = sorted(dict(points).items())
    text = chart("t", [Curve("a", points, 1, dots=True), Curve("b", points, 2, faint=faint)])
    if not points:
        assert text == ""
        return
    svg = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    for element in svg.iter():
        for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy"):
            if name in element.attrib:
                assert -10 <= float(element.attrib[name]) <= 600
        for pair in element.attrib.get("points", "").split():
            x, y = map(float, pair.split(","))
            assert 57 <= x <= 547
            assert 13 <= y <= 223


@given(numbers, numbers, st.integers(2, 8))
def test_ticks_are_round_few_and_cover_the_range(a: float, b: float, wanted: int) -> None:
    low, high = min(a, b), max(a, b)
    if high - low < 1e-9 * max(1.0, abs(high)):
        return
    found = ticks(low, high, wanted)
    slack = (high - low) * 1e-6
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    assert len(found) <= 2 * wanted + 2
    whole = ticks(math.ceil(low), math.ceil(low) + wanted * 3, wanted, whole=True)
    assert all(t == int(t) for t in whole)


def test_thinning_keeps_spikes_and_the_ends() -> None:
    points = [(float(i), 1.0) for i in range(10_000)]
    points[5_003] = (5_003.0, 99.0)
    points[7_777] = (7_777.0, -99.0)
    kept = thin(points, 400)
    assert len(kept) <= 402
    assert {(5_003.0, 99.0), (7_777.0, -99.0), points[0], points[-1]} <= set(kept)
    assert kept == sorted(kept)


def test_smoothing_has_no_lag() -> None:
    line = [(float(i), 2.0 * i) for i in range(500)]
    assert all(math.isclose(y, 2 * x, abs_tol=1e-9) for x, y in smooth(line))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00005, "5e-5"),
        (0.25, "0.25"),
        (1234, "1234"),
        (12_000, "12k"),
        (2_500_000, "2.5M"),
        (-0.5, "-0.5"),
        (1e-10, "1e-10"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text
    assert not re.search(r"\.$", number(value))


def test_texts_with_nothing_to_see_say_so() -> None:
    page = Page(html_report(chat(samples=(Sample("p", " \n" * 500, ""),)), []))
    assert "(only white space)" in page.text
    assert "(nothing)" in page.text


def test_numbers_are_drawn_and_thresholds_are_listed() -> None:
    pairs = Pairs((1.0, 2.0, 4.0), ((7, 0), (1, 12)))
    page = assert_fetches_nothing(html_report(dataclasses.replace(classification(), pairs=pairs), list(events())))
    assert "Numbers, on the test rows" in page.text
    assert "predicted 2 to 4, true 1 to 2: 1" in page.text
    boxes = [attrs for tag, attrs in page.tags if tag == "rect"]
    assert len(boxes) == 3, "nothing where there is nothing"
    assert "counts from" not in page.text
    score = ClassScore("spam", 0.9, 0.8, 0.85, 40, threshold=0.3125)
    chosen = dataclasses.replace(classification(), classes=(score,))
    assert "counts from" in (text := Page(html_report(chosen, [])).text)
    assert "0.3125" in text
    one = html_report(dataclasses.replace(classification(), pairs=Pairs((3.0, 3.5), ((4,),))), [])
    assert "nan" not in one.lower().split("<style>")[0]
    assert_fetches_nothing(one)


def test_curves_of_twelve_folds_look_different() -> None:
    steps = [{"kind": "step", "step": n + 1, "fold": n // 3 + 1, "loss": 1.0} for n in range(36)]
    nothing = ({},) * 12
    found = Folds(rows=(3,) * 12, metrics=nothing, mean={}, deviation={}, pooled={}, decided=None, predictions=None)
    curves = losses_of_folds(found, steps)
    assert len({curve.style for curve in curves}) == 12
    assert [x for x, _ in curves[5].points] == [1, 2, 3], "each from its own first step"
    drawn = chart("Loss", curves)
    assert all(f'class="curve {curve.style}"' in drawn and f'<i class="{curve.style}">' in drawn for curve in curves)
