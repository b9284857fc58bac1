"""The page in a browser: it draws, it is quiet, it fits, it is operated by keyboard, and it shows the numbers it was given."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from browser import Finding, Load, Step, load_pages
from made_pages import hostile_page, long_page, made_page, noisy_plane, unequal_page, unfinished_page

from loss_landscape.page.build import write_page
from loss_landscape.page.content import Moment, Page, RunView, SpectrumView
from loss_landscape.page.library import LIBRARY

pytestmark = pytest.mark.slow

SIZES, SCHEMES, WEBGL = ((1366, 768), (390, 844), (1920, 1080)), ("light", "dark"), (True, False)
VIEWS = list(itertools.product(SIZES, SCHEMES, WEBGL))
PAGES = {
    "four tasks": lambda: made_page(4),
    "one task": lambda: made_page(1),
    "cells that are not finite": unfinished_page,
    "planes alone": lambda: made_page(3, whole=False),
    "runs that are not equal": unequal_page,
    "hostile names": hostile_page,
}
TWELVE = [(name, *view) for name, view in zip(itertools.cycle(PAGES), VIEWS, strict=False)]
LONG = "five hundred tasks"  # seconds to make: not among the twelve
ALL = PAGES | {LONG: long_page}

LOOK = """(() => {
  const plots = [...document.querySelectorAll(".plot")];
  const shown = plots.filter((plot) => plot.offsetParent !== null);
  const apart = (one, other) => one.left >= other.right || other.left >= one.right
    || one.top >= other.bottom || other.top >= one.bottom;
  const box = (each) => each.getBoundingClientRect();
  return {
    width: document.documentElement.scrollWidth,
    visible: document.documentElement.clientWidth,
    empty: shown.filter((plot) => !plot.querySelector(".main-svg") && !plot.dataset.sentence).map((plot) => plot.id),
    unnamed: shown.filter((plot) => plot.layout && !plot.getAttribute("aria-label")).map((plot) => plot.id),
    plots: shown.length,
    covered: [...document.querySelectorAll(".card:has(.curve)")].filter((card) => [...card.querySelectorAll("h3, p")]
      .some((text) => !apart(box(text), box(card.querySelector(".curve"))))).map((card) => card.textContent),
    contexts: document.querySelectorAll(".gl-container canvas").length,
    without: [...document.querySelectorAll(".plot")].filter((plot) => plot.textContent.includes("no WebGL")).length,
    hostile: window.PWNED ?? null,
    title: document.querySelector("h1").textContent,
    small: matchMedia("(pointer: coarse)").matches ? [...document.querySelectorAll("button, select, input, summary")]
      .filter((each) => each.offsetParent && Math.max(each.offsetHeight, each.closest("label")?.offsetHeight ?? 0) < 44)
      .map((each) => each.id || each.textContent) : [],
  };
})()"""
STEPS: Sequence[Step] = (("settle", None), ("scroll", None), ("evaluate", LOOK), ("axe", None))


def write(folder: Path, name: str, page: Page, **how: str) -> str:
    path = folder / f"{name.replace(' ', '_')}.html"
    write_page(path, page, **how)
    return str(path)


def picture_of(view: tuple, folder: Path) -> str:
    """Where a view is kept, to be looked at: `pytest --basetemp=FOLDER` says below which folder."""
    name, (width, height), scheme, webgl = view
    words = [name.replace(" ", "_"), f"{width}x{height}", scheme, "webgl" if webgl else "flat"]
    return str(folder / f"{'-'.join(words)}.png")


def look_at(views: Sequence, folder: Path) -> dict[tuple, Finding]:
    """Each page at each of its sizes, schemes, with and without WebGL."""
    files = {name: write(folder, name, ALL[name]()) for name in dict.fromkeys(view[0] for view in views)}
    found = {}
    for webgl in WEBGL:
        chosen = [view for view in views if view[3] == webgl]
        loads = [Load(files[view[0]], *view[1], view[2], (*STEPS, ("picture", picture_of(view, folder)))) for view in chosen]
        found |= dict(zip(chosen, load_pages(loads, webgl=webgl), strict=True))
    return found


def check(found: Mapping[tuple, Finding]) -> None:
    """No error, no request, no sideways scrolling, each picture drawn or a sentence in its place, nothing serious for axe."""
    for view, finding in found.items():
        name, _, _, webgl = view
        _, _, seen, violations, _ = finding.results
        assert (view, finding.errors, finding.requests) == (view, [], [])
        assert (view, seen["empty"], seen["unnamed"], seen["small"], seen["covered"]) == (view, [], [], [], [])
        assert (view, seen["hostile"]) == (view, None)
        assert seen["width"] == seen["visible"], (view, seen)
        assert seen["plots"] > 0
        assert 0 < seen["contexts"] <= 3 if webgl else seen["contexts"] == 0, (view, seen)
        assert (seen["without"] == 0) == webgl, (view, seen)
        assert "PWNED" in seen["title"] if name == "hostile names" else "PWNED" not in seen["title"]
        assert (view, [each for each in violations if each["impact"] in ("serious", "critical")]) == (view, [])


def test_twelve_views(tmp_path):
    check(look_at(TWELVE, tmp_path))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ALL)
def test_all_views(name, tmp_path):
    check(look_at([(name, *view) for view in VIEWS], tmp_path))


# -- what is done with it


SAID = 'document.getElementById("said").textContent'
TITLE = 'document.getElementById("plane0-title").textContent'
CURSOR = 'document.querySelector(".charts .plot").layout.shapes[0].x0'
RANGE = 'JSON.stringify(document.getElementById("plane0").layout.xaxis.range)'
CAMERA = 'document.getElementById("surface0").layout.scene.camera.eye.x'
FOCUS = "document.activeElement.id || document.activeElement.tagName"


def test_everything_is_reached_by_keyboard(tmp_path):
    """The slider moves every picture, the plane zooms and comes back, the surface turns; Tab gets to each control in order."""
    steps: list[Step] = [("settle", None), ("scroll", None)]

    def then(*more: Step) -> list[int]:
        begin = len(steps)
        steps.extend(more)
        return list(range(begin, len(steps)))

    before = then(("evaluate", SAID), ("evaluate", TITLE), ("evaluate", CURSOR))
    then(("focus", "#position"), ("press", "ArrowLeft"), ("settle", None))
    after = then(("evaluate", SAID), ("evaluate", TITLE), ("evaluate", CURSOR))
    then(("focus", "#plane0"))
    zoom = then(
        ("evaluate", RANGE), ("press", "+"), ("evaluate", RANGE), ("press", "ArrowRight"), ("evaluate", RANGE), ("press", "0")
    )
    zoom += then(("evaluate", RANGE))
    turn = then(("evaluate", CAMERA), ("focus", "#turn"), ("press", "ArrowRight"), ("settle", None), ("evaluate", CAMERA))
    then(("evaluate", 'document.querySelector("#theme").focus()'))
    order = [at for _ in range(30) for at in then(("press", "Tab"), ("evaluate", FOCUS))][1::2]
    [finding] = load_pages([Load(write(tmp_path, "keys", made_page(4)), 1366, 768, "light", steps)], webgl=True)
    results = finding.results
    assert finding.errors == []
    assert [results[at] for at in before] == ["4 of 4 · 96.7 % · λ₁ 9.5", "task 3 · loss at the centre 0.09303", 3]
    assert [results[at] for at in after][0] == "3 of 4 · 96.8 % · λ₁ 8.5"
    assert [results[at] for at in after][1].startswith("task 2 · ")
    assert [results[at] for at in after][2] == 2
    whole, _, closer, _, moved, _, again = (results[at] for at in zoom)
    assert whole == again
    assert len({whole, closer, moved}) == 3
    assert results[turn[0]] != results[turn[-1]]
    reached = [results[at] for at in order]
    wanted = ["SUMMARY", "previous", "position", "kind", "shared", "contours", "csv", "png", "plane0", "turn", "tilt", "cuts"]
    places = [reached.index(each) for each in wanted]
    assert places == sorted(places)


def test_the_numbers_are_those_it_was_given(tmp_path):
    """Decoded in the browser: within 1e-4 of the value or of the relief, NaN and the infinities where they were."""
    pages = {"whole": made_page(2), "torn": unfinished_page()}
    code = """(async () => {
      const [names] = window.lossPage.names();
      const facts = await Promise.all(names.map((name) => window.lossPage.decodeAfresh(name)));
      return facts.map(({ planes }) => Object.fromEntries(Object.entries(planes).map(([kind, plane]) =>
        [kind, plane.z.map((row) => Array.from(row, String))])));
    })()"""
    loads = [Load(write(tmp_path, name, page), 1366, 768, "light", (("evaluate", code),)) for name, page in pages.items()]
    for page, finding in zip(pages.values(), load_pages(loads, webgl=False), strict=True):
        [moments] = finding.results
        for moment, planes in zip(page.runs[0].moments, moments, strict=True):
            for view in moment.planes:
                back, given = np.array(planes[view.kind], dtype=np.float64).T, view.grid.losses
                finite = np.isfinite(given)
                np.testing.assert_array_equal(back[~finite], given[~finite])
                if finite.any():
                    error, relief = np.abs(back[finite] - given[finite]), np.ptp(given[finite])
                    assert (error <= 1e-4 * np.maximum(np.abs(given[finite]), relief)).all()


def test_colours_are_those_of_the_png(tmp_path):
    """The limits of a plane that is clipped, as ColourScale has them; cells above have the colour that PNGs give them."""
    from loss_landscape.page.content import Moment, PlaneView, RunView
    from loss_landscape.results.grid import Grid
    from loss_landscape.viewing.colour_scale import ColourScale

    axis = np.linspace(-1.0, 1.0, 21)
    losses = 1.0 + np.add.outer(axis**2, axis**2)
    losses[0, :3] = 50.0
    scale = ColourScale.of(losses)
    assert scale.clipped
    page = Page("clipped", (RunView("r", moments=(Moment(0, planes=(PlaneView("p", "p", Grid(losses, (axis, axis))),)),)),))
    code = """(() => {
      const [cells, marks] = document.getElementById("plane0").data;
      const items = [...document.querySelectorAll("#plane0-legend li")];
      const legend = items.map((item) => [item.textContent, item.firstChild.style.color]);
      return { low: cells.zmin, high: cells.zmax, marked: marks.z.flat().filter((mark) => mark === 2).length, legend };
    })()"""
    steps = (("settle", None), ("evaluate", code))
    [finding] = load_pages([Load(write(tmp_path, "clipped", page), 1366, 768, "light", steps)], webgl=True)
    seen = finding.results[-1]
    assert (seen["low"], seen["high"]) == pytest.approx((scale.low, scale.high), rel=1e-8)
    assert seen["marked"] == (losses > scale.high).sum()
    assert seen["legend"] == [["above the colours", "rgb(255, 255, 200)"]]


def test_curves_stand_at_the_moments_of_their_own_run(tmp_path):
    """Of two runs with other moments, without places given; a legend says whose a single curve is, and what a cross is."""
    from loss_landscape.page.content import Chart, Moment, Panel, RunView, Series

    def run(name, numbers, values):
        panel = Panel("over", (Chart("loss", (Series("own", values),)),), "read", "not")
        return RunView(name, moments=tuple(map(Moment, numbers)), over=(panel,))

    alone = Page("alone", (run("a", (0, 1, 2, 3), (4.0, 3.0, float("nan"), 1.0)),))
    both = Page("both", (alone.runs[0], run("b", (1, 3), (5.0, 7.0))))
    code = """(() => {
      const plot = document.querySelector(".charts .plot");
      const lines = plot.data.filter((trace) => trace.mode !== "markers");
      const legend = [...document.querySelectorAll(`#${plot.id}-legend li`)].map((item) => item.textContent);
      return { x: lines.map((trace) => trace.x), legend };
    })()"""
    steps = (("settle", None), ("evaluate", code))
    files = [write(tmp_path, page.title, page) for page in (alone, both)]
    one, two = load_pages([Load(file, 1366, 768, "light", steps) for file in files], webgl=False)
    assert one.results[-1] == {"x": [[0, 1, 2, 3]], "legend": ["not finite"]}
    assert two.results[-1] == {"x": [[0, 1, 2, 3], [1, 3]], "legend": ["A · own", "B · own", "not finite"]}


def test_a_plane_of_a_moments_start_says_so(tmp_path):
    from loss_landscape.page.content import Moment, PlaneView, RunView

    grid = noisy_plane(9)
    planes = (PlaneView("random", "random", grid), PlaneView("start/random", "random, at the start", grid, when="start"))
    page = Page("starts", (RunView("r", moments=tuple(Moment(task, planes=planes) for task in (0, 1))),))
    choose = 'document.querySelector("#kind").value = "1"; document.querySelector("#kind").dispatchEvent(new Event("change"))'
    steps = (("settle", None), ("evaluate", TITLE), ("evaluate", choose), ("settle", None), ("evaluate", TITLE))
    [finding] = load_pages([Load(write(tmp_path, "starts", page), 1366, 768, "light", steps)], webgl=False)
    assert [finding.results[1].partition(" · ")[0], finding.results[4].partition(" · ")[0]] == ["task 1", "start of task 1"]


def test_a_largest_eigenvalue_that_is_not_finite_is_said_to_be_none(tmp_path):
    code = 'document.getElementById("spectrum-note").textContent'
    views = (SpectrumView((np.nan, 2.0), (np.nan, 0.1), (False, True), threshold=8.0), SpectrumView((2.0,), (0.1,), (True,)))
    runs = [RunView("r", moments=(Moment(0, spectrum=view),)) for view in views]
    files = [write(tmp_path, str(number), Page("r", (run,))) for number, run in enumerate(runs)]
    steps = (("settle", None), ("evaluate", code))
    found = load_pages([Load(file, 1366, 768, "light", steps) for file in files], webgl=False)
    assert [finding.results[-1] for finding in found] == ["The largest λ is not finite. 2/η = 8.", "Largest λ 2 ± 0.1."]


def test_a_page_without_its_library_says_so(tmp_path):
    """The cards and the tables are there, the pictures are not, and nothing fails but the file that is missing."""
    code = """({ warned: !document.getElementById("without-library").hidden,
      plots: [...document.querySelectorAll(".plot")].filter((plot) => plot.offsetParent).length,
      cards: document.querySelectorAll(".card").length })"""
    file = write(tmp_path, "missing", made_page(2), library=f"nowhere/{LIBRARY}")
    [finding] = load_pages([Load(file, 390, 844, "dark", (("evaluate", code),))], webgl=False)
    assert finding.results == [{"warned": True, "plots": 0, "cards": 4}]
    assert [error for error in finding.errors if "ERR_FILE_NOT_FOUND" not in error] == []


def test_a_page_beside_its_library_draws(tmp_path):
    from loss_landscape.page.library import library_bytes

    (tmp_path / LIBRARY).write_bytes(library_bytes())
    (tmp_path / "deep").mkdir()
    file = write(tmp_path / "deep", "beside", made_page(1), library=f"../{LIBRARY}")
    [finding] = load_pages([Load(file, 1366, 768, "light", STEPS)], webgl=False)
    assert (finding.errors, finding.results[2]["empty"]) == ([], [])


def test_a_page_without_scripts_is_read(tmp_path):
    file = write(tmp_path, "plain", made_page(2))
    code = "document.body.innerText"
    [finding] = load_pages([Load(file, 390, 844, "light", (("evaluate", code),), scripts=False)], webgl=False)
    [text] = finding.results
    for said in ("Is it losing plasticity?", "97.4 % ± 0.3 %", "Without scripts this page has", "How it was made"):
        assert said in text
    assert "Along three directions" not in text


def test_a_page_prints(tmp_path):
    """All pictures on paper, each with its heading, none wider than the sheet."""
    code = """(() => {
      dispatchEvent(new Event("beforeprint"));
      const plots = [...document.querySelectorAll(".plot")];
      const drawn = (plot) => plot.querySelector(".main-svg")?.getBoundingClientRect().width ?? 0;
      const wide = plots.filter((plot) => plot.offsetWidth > 700 || drawn(plot) > plot.offsetWidth + 1).map((plot) => plot.id);
      const empty = plots.filter((plot) => !plot.querySelector(".main-svg")).map((plot) => plot.id);
      const folded = document.querySelectorAll(".card details:not([open])").length;
      dispatchEvent(new Event("afterprint"));
      return { wide, empty, folded };
    })()"""
    pdf = tmp_path / "page.pdf"
    steps = (("settle", None), ("evaluate", code), ("settle", None), ("pdf", str(pdf)))
    [finding] = load_pages([Load(write(tmp_path, "print", made_page(4)), 1366, 768, "dark", steps)], webgl=True)
    seen = finding.results[1]
    assert (seen["wide"], seen["folded"]) == ([], 0)
    assert [name for name in seen["empty"] if not name.startswith("surface")] == []
    assert pdf.read_bytes()[:5] == b"%PDF-"
    assert finding.errors == []
