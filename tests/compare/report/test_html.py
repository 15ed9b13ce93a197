"""The page: what is on it, in what order, that it reads aloud, and the colours of methods."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest

from fewfit.compare import METHODS, advice, compare
from fewfit.compare.report.html import html_report
from fewfit.compare.report.plots import plot_accuracy
from fewfit.compare.report.styles import COLOURS, MARKS, style_of, styles
from tests.compare.test_experiment import LABELS, TEST, TRAIN, make

STYLE = (files("fewfit.compare.report") / "report.css").read_text(encoding="utf-8")
PAPERS = re.findall(r"--paper: (#\w{6})", STYLE)


class Tree(HTMLParser):
    """Events of a page: opening tags with their attributes, closing tags, texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[tuple[str, dict[str, str | None]]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
            assert self.open[-1] == "div"  # the box that scrolls
        if self.tables and "table" in [*self.open, tag]:
            self.tables[-1].append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def found():
    return make(methods=["offset-regression", "zero-shot", "tfidf"], seeds=2).run()


def test_the_page_opens_with_the_advice(found):
    page = html_report(found, title="mine")
    said = f'<p class="advice">{advice(found)}</p>'
    assert page.startswith("<!doctype html>")
    assert page.index(said) < min(page.index(tag) for tag in ("<h2", "<table", "<dl", "<figure"))
    assert page.index("<dl>") > page.index("Errors</h2>")


def test_every_table_has_a_caption_scopes_and_a_box_that_scrolls(found):
    many = [f"class {i}" for i in range(20)]
    wide = compare(
        [f"{name} {i}" for name in many for i in range(2)],
        [name for name in many for _ in range(2)],
        [f"so {name}" for name in many[1:]],
        many[:-1],
        methods=["tfidf"], shots=[1, 2], seeds=1, store=None, models=["fake"], price_per_token=1.0,
    )  # fmt: skip
    for page in (html_report(found), html_report(wide)):
        tree = Tree(page)
        assert len(tree.tables) >= 5
        for table in tree.tables:
            tags = [tag for tag, _ in table]
            assert tags[1] == "caption"
            heads = [attrs.get("scope") for tag, attrs in table if tag == "th"]
            assert None not in heads
            rows = tags.count("tr") - 1 - heads.count("colgroup") // 3
            assert heads.count("row") == rows
            assert "td" in tags
        outline = [int(tag[1]) for tag, _ in tree.tags if re.fullmatch(r"h\d", tag)]
        assert outline[0] == 1
        assert outline.count(1) == 1
        assert tree.open == []
    assert "Most frequent confusions" in html_report(wide)
    assert ">price</th>" not in html_report(found)


def test_a_summary_that_is_missing_is_a_dash(found):
    gone = [s for s in found.summaries if (s.method, s.shots) != ("tfidf", 1)]
    page = html_report(found.model_copy(update={"summaries": gone, "diagnoses": []}))
    assert "<td>–</td>" in page
    assert "Reliability" not in page


def test_hostile_names_and_texts_stay_text():
    evil = '"><img src=x onerror=alert(1)>{{ 7*7 }}{% raw %}</style>'
    methods = {f"dect {evil}": "dect", "tfidf": "tfidf"}
    texts = [f"{text} {evil}" for text in TEST[0]]
    found = compare(
        *TRAIN, texts, TEST[1], labels=LABELS, methods=methods, shots=[1], seeds=1, store=None,
        models=["fake"],
    )  # fmt: skip
    page = html_report(found, title=evil)
    tags = {tag for tag, _ in Tree(page).tags}
    assert not tags & {"img", "script", "link", "iframe", "object", "a"}
    assert "49" not in page.partition("<h2>")[0]
    assert page.count("</style>") == 1
    assert "&lt;img" in page
    assert "{{ 7*7 }}" in page


def test_a_method_keeps_its_colour_from_report_to_report(found, tmp_path):
    other = make(methods=["dect", "tfidf", "zero-shot", "offset-regression"], shots=[1]).run()

    def colours(page):
        drawn = re.findall(r'swatch s(\d)".*?</svg> ([\w-]+)</th>', page)
        return {name: colour for colour, name in drawn}

    first, second = colours(html_report(found)), colours(html_report(other))
    assert set(first) == {"offset-regression", "zero-shot", "tfidf"}
    assert first.items() <= second.items()
    assert len(set(second.values())) == 4
    pytest.importorskip("matplotlib")
    plot_accuracy(other.summaries, tmp_path / "plot.png", title="all")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_styles_follow_the_name_and_differ_within_a_report():
    assert style_of("DecT") == style_of("dect")
    assert style_of("linear probe") == style_of("linear-probe")
    variants = styles(["dect", "dect+batch", "dect, hf:one", "dect, hf:two"])
    assert len(set(variants.values())) == 4
    assert {style.colour for style in variants.values()} == {style_of("dect").colour}
    drawn = styles(METHODS)
    assert all(drawn[name].colour == style_of(name).colour for name in METHODS)
    at_most = len(COLOURS) * len(MARKS)
    assert len(set(drawn.values())) > 0.6 * min(len(METHODS), at_most)
    assert len(styles([f"dect+{i}" for i in range(9)])) == 9  # more than there are marks


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]
    x = (np.array(to_xyz) @ np.clip(rgb, 0, 1)) / [0.9505, 1.0, 1.0888]
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


SIGHT = {
    "trichromat": np.eye(3),
    # Machado, Oliveira and Fernandes 2009, severity 1
    "protanope": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.052]],
    "deuteranope": [[0.3673, 0.8606, -0.228], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanope": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_are_apart_for_everyone(sight):
    """CIELAB, 1976: a difference of 20 is plain to see; 2 is just noticeable."""
    seen = [lab(np.array(SIGHT[sight]) @ linear(colour)) for colour in COLOURS]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(apart) > 20


def test_colours_are_read_on_either_paper():
    """3 to 1 is what WCAG 2.1 asks of graphics."""
    assert len(set(PAPERS)) == 2
    for colour in COLOURS:
        for paper in PAPERS:
            low, high = sorted([luminance(colour), luminance(paper)])
            assert (high + 0.05) / (low + 0.05) >= 3


def test_wrong_rows_are_numbered_as_in_a_file(found):
    """The first row is row 1 of the page, and 0 of the JSON."""
    page = html_report(found)
    below = page[page.index("Most confidently wrong") :]
    rows = re.findall(r"<th scope=.row.>(\d+)</th>\s*<td[^>]*>([^<]+)</td>", below)
    assert rows
    for number, text in rows:
        assert TEST[0][int(number) - 1] == text
