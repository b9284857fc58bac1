"""A page's bytes: the same twice, small, inert, and readable without scripts."""

from __future__ import annotations

import hashlib
import html.parser
import re
from collections.abc import Set

import numpy as np
import pytest
from made_pages import HOSTILE, hostile_page, long_page, made_page, moment, unfinished_page

from loss_landscape.page.build import build_page
from loss_landscape.page.content import MatrixView, Moment, Page, RunView
from loss_landscape.page.frame import Frame
from loss_landscape.page.library import LIBRARY, SHA256, library_bytes

SHARED = f"../../{LIBRARY}"


class Reading(html.parser.HTMLParser):
    """What a reader without scripts sees, the elements, and what stands in each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data


def test_the_bundle_is_the_one_that_was_built():
    content = library_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256
    assert len(content) <= 1_950_000


@pytest.mark.parametrize("page", [made_page, unfinished_page, hostile_page], ids=lambda make: make.__name__)
def test_the_same_content_gives_the_same_bytes(page):
    assert build_page(page(), library=SHARED) == build_page(page(), library=SHARED)


def test_a_page_of_four_tasks_is_small():
    page = made_page(4)
    assert len(build_page(page)) <= 2_200_000
    assert len(build_page(page, library=SHARED)) <= 200_000


@pytest.mark.slow
def test_a_page_of_five_hundred_tasks_can_be_sent():
    assert len(build_page(long_page())) <= 30_000_000


def test_cards_and_tables_are_read_without_scripts():
    reading = Reading(build_page(made_page(4)).decode())
    for card in made_page().runs[0].cards:
        for said in (card.question, card.answer, card.headline, card.evidence, card.limits):
            assert said in reading.text
    for said in ("All numbers by task", "0.964", "as it should", "learner", "backprop"):
        assert said in reading.text


def test_names_are_text_and_nothing_else():
    """As many elements as with harmless names, no attribute that runs, no script but the page's own."""
    text = build_page(hostile_page(), library=SHARED).decode()
    reading, harmless = Reading(text), Reading(build_page(hostile_page(), library=SHARED).decode().replace("PWNED", ""))
    assert HOSTILE in reading.text
    assert not [name for _, attributes in reading.elements for name in attributes if name.startswith("on")]
    assert [tag for tag, _ in reading.elements] == [tag for tag, _ in harmless.elements]
    assert "img" not in {tag for tag, _ in reading.elements}
    assert [attributes.get("type") for tag, attributes in reading.elements if tag == "script"].count(None) == 2
    assert text.count("<script") == len(reading.scripts)
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", text)[0]


def test_only_the_pages_own_scripts_may_run():
    """Each inline script's hash is in the policy, and nothing else is allowed."""
    reading = Reading(build_page(made_page(2)).decode())
    [policy] = [a["content"] for tag, a in reading.elements if tag == "meta" and a.get("http-equiv")]
    types = [attributes.get("type") for tag, attributes in reading.elements if tag == "script"]
    running = [script for script, kind in zip(reading.scripts, types, strict=True) if kind is None]
    import base64

    for script in running:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.split("style-src")[0]
    assert "unsafe-eval" not in policy
    assert "http" not in policy


def test_a_page_with_a_shared_library_names_it_and_says_what_is_missing():
    reading = Reading(build_page(made_page(1), library=SHARED).decode())
    assert [a["src"] for tag, a in reading.elements if tag == "script" and "src" in a] == [SHARED]
    assert f"drawn by {LIBRARY}, which this page did not find at {SHARED}" in reading.text


def test_every_picture_has_what_to_read_and_what_it_cannot_tell():
    reading = Reading(build_page(made_page(4), library=SHARED).decode())
    assert reading.text.count("Read") >= 11
    assert reading.text.count("Read ") == reading.text.count("Can’t tell")


def test_a_page_of_nothing_is_a_page():
    assert b"<h1>empty</h1>" in build_page(Page("empty", (RunView("empty"),)), library=SHARED)


def test_settings_that_differ_come_first():
    text = Reading(build_page(made_page(2, runs=2), library=SHARED).decode()).text
    made = text[text.index("How it was made") :]
    assert made.index("lr") < made.index("learner")
    assert re.search(r"lr\s*0\.1\s*0\.2", made)


def run_of(name: str, *, planes: Set[int], without: Set[int] = frozenset()) -> RunView:
    """A run whose moments are numbered so, those of `without` without a plane."""
    of = {number: moment(number, side=5, kinds=("random",), whole=False) for number in planes}
    return RunView(
        name, moments=tuple({**of, **{number: Moment(number) for number in without}}[at] for at in sorted(planes | without))
    )


@pytest.mark.parametrize(
    ("runs", "begin"),
    [
        ([], 0),
        ([run_of("a", planes={0, 1, 2})], 2),
        ([run_of("a", planes={0, 9}, without={4, 12})], 2),  # planes at every tenth task: the last of them
        ([run_of("a", planes=set(), without={0, 1})], 1),
        ([run_of("a", planes=set(), without={*range(6)}), run_of("b", planes={*range(5)})], 4),
        ([run_of("a", planes={0, 1, 2, 3}), run_of("b", planes={0}, without={1})], 0),
        ([run_of("a", planes={0, 1, 2}), run_of("b", planes={0, 1, 2}), run_of("c", planes={0})], 2),  # c is not shown yet
        ([run_of("a", planes={0, 1}), run_of("b", planes={5, 6})], 3),
    ],
)
def test_the_slider_begins_where_there_is_something_to_see(runs, begin):
    page = Page("begins", tuple(runs))
    assert Frame(page).context()["head"]["begin"] == begin
    if begin:
        assert f'value="{begin}" step="1"' in build_page(page, library=SHARED).decode()


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        (np.zeros((2, 2)), (0.0, 1.0)),
        (np.full((2, 2), np.nan), (0.0, 1.0)),
        (np.full((2, 2), 0.3), (0.0, 0.3)),
        (np.array([[0.0, 2.0], [np.inf, 0.0]]), (0.0, 2.0)),
        (np.array([[0.0, -2.0], [-1.0, 0.0]]), (-2.0, 0.0)),
    ],
)
def test_a_matrix_has_a_colour_bar_from_zero(values, ends):
    """Also where all values are equal; lower values alone reach below."""
    page = Page("m", (RunView("m", matrices=(MatrixView("Barriers", ("a", "b"), values, "read", "not"),)),))
    [matrix] = Frame(page).context()["head"]["matrices"]
    assert (matrix["scale"]["low"], matrix["scale"]["high"]) == ends
