"""The page in Chromium: it works from a file, loads nothing, and does what it says."""

import json
import re
import shutil
from html import escape
from pathlib import Path

import pytest

from records.store import Store
from reports.render import render

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
EVIL = '<img src=x onerror="document.title=1"><b>bold</b>'
GATED = {"class": "overconv.MDConv2d", "options": {"depth": 3}}
LAYER = {"class": "my.Layer", "options": {"arm": EVIL}}


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory) -> Path:
    """A report whose folder holds the page alone: it must not need the files beside it."""
    root = tmp_path_factory.mktemp("report")
    accuracies = {**made.realistic(6), EVIL: [0.8, 0.79, 0.8, 0.81, 0.8, 0.8]}
    made.make_results(root / "results", accuracies, looks=[6], notes={"plain": EVIL})
    for name, content in render(Store(root / "results")).files.items():
        if name == "index.html":
            (root / name).write_bytes(content)
    return root


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield found
        found.close()


@pytest.fixture
def page(browser, folder):
    """The page in a window; afterwards: nothing was complained of, nothing was asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    opened, said, asked = context.new_page(), [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto((folder / "index.html").as_uri())
    yield opened
    context.close()
    assert said == []
    own = ("file://", "data:", "blob:")
    assert asked and not [url for url in asked if not url.startswith(own)]
    assert [url for url in asked if url.startswith("file:")] == [(folder / "index.html").as_uri()]


def column(page, table: str, number: int) -> list[str]:
    return page.locator(f"[id='{table}'] tbody tr:visible td:nth-child({number})").all_inner_texts()


TABLE = "table.depth.reference.fashion_mnist"


def test_the_first_screen_gives_the_answer_and_text_stays_text(page):
    answer = page.locator(".answer")
    assert "of 11 claims are answered" in answer.inner_text()
    for name in ("C1", "D2"):
        box = page.locator(f"#claim-{name} summary").bounding_box()
        assert box["y"] + box["height"] <= 900, f"{name} is below the first screen"
    assert page.title().startswith("overconv")
    assert page.locator("img[src=x]").count() == 0
    assert EVIL in page.locator(f"[id='{TABLE}']").inner_text()


def test_the_keyboard_reaches_and_opens_every_claim(page):
    reached, page_body = [], page.locator("body")
    page_body.press("Tab")
    for _ in range(13):
        page.keyboard.press("Tab")
        owner = "document.activeElement.closest('details.claim')?.id ?? ''"
        if found := page.evaluate(owner):
            reached.append(found)
    names = [
        f"claim-{name}"
        for name in ("C1", "C1.own", "C2", "C3", "C4", "C5", "C6", "D1", "D2", "D3", "D4")
    ]
    assert reached == names
    page.locator("#claim-D1 summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#claim-D1").evaluate("details => details.open")
    assert page.locator("#claim-D1 .body svg").first.is_visible()


def test_sorting_sorts_by_number_and_back(page):
    head = page.locator(f"[id='{TABLE}'] thead th", has_text="difference").locator("button")
    heads = page.locator(f"[id='{TABLE}'] thead th").all_inner_texts()
    place = heads.index("difference, points") + 1
    before = [cell for cell in column(page, TABLE, place) if cell != "baseline"]
    numbers = sorted(before, key=lambda cell: float(cell.replace("\N{MINUS SIGN}", "-")))
    assert before != numbers, "it would be sorted anyway"
    assert numbers[0][0] == numbers[1][0] == "\N{MINUS SIGN}", "signs must be understood"
    head.click()
    assert column(page, TABLE, place) == [*numbers, "baseline"]
    assert head.locator("xpath=..").get_attribute("aria-sort") == "ascending"
    head.press("Enter")
    assert column(page, TABLE, place) == [*numbers[::-1], "baseline"], "what has no value is last"


def test_the_filter_leaves_what_has_all_words(page):
    page.locator(f"input[data-table='{TABLE}']").fill("gated")
    assert column(page, TABLE, 1) == ["gated-1", "gated-2", "gated-3"]
    assert page.locator(".filter output").first.inner_text() == "3 of 8 rows"
    page.locator(f"input[data-table='{TABLE}']").fill("")
    assert len(column(page, TABLE, 1)) == 8


def hover(page, chart, curve: str, point: int) -> str:
    """What is shown of the curve of that name where the mouse is on one of its points."""
    chart.scroll_into_view_if_needed()
    plot = chart.locator(".plot")
    plot.locator(".main-svg").first.wait_for()
    x, y = plot.evaluate(
        """(plot, [name, point]) => {
          const trace = plot._fullData.find((t) => t.name === name && t.hovertext && t.showlegend);
          const {xaxis, yaxis, _size} = plot._fullLayout;
          return [_size.l + xaxis.d2p(trace.x[point]), _size.t + yaxis.d2p(trace.y[point])];
        }""",
        [escape(curve, quote=False), point],
    )
    box = plot.bounding_box()
    page.mouse.move(box["x"] + x - 3, box["y"] + y - 3)
    page.mouse.move(box["x"] + x, box["y"] + y)
    label = plot.locator(".hoverlayer .hovertext", has_text=curve).first
    label.wait_for(timeout=5000)
    return label.text_content()


def test_hover_shows_the_recorded_number_and_the_options(page, folder):
    store = Store(folder / "results")
    rows = [r for r in store.records() if r.configuration["arm"]["layer"] == GATED]
    mean = 100 * sum(r.metrics["test_accuracy"] for r in rows) / len(rows)
    said = hover(page, page.locator("figure[data-chart=points]"), "gated-3", 0)
    assert f"{float(f'{mean:.4g}'):g} %" in said
    assert "33,140" in said and "MDConv2d" in said and "depth 3" in said and "6 blocks" in said
    rows = [r for r in store.records() if r.configuration["arm"]["layer"] == LAYER]
    curve = 100 * sum(r.curves["validation_accuracy"][7] for r in rows) / len(rows)
    said = hover(page, page.locator("figure[data-chart=curves]"), EVIL, 7)
    assert f"{EVIL}, epoch 8: {float(f'{curve:.4g}'):g}" in said


def test_differences_are_those_of_the_same_block(page, folder):
    store = Store(folder / "results")
    by_block = {}
    for name, layer in (("gated", GATED), ("plain", None)):
        for record in store.records():
            arm = record.configuration
            if arm["arm"]["layer"] == layer and arm["network"]["options"]["width"] == 8:
                by_block[name, arm["block"]] = record.curves["validation_accuracy"][7]
    mean = 100 * sum(by_block["gated", b] - by_block["plain", b] for b in range(6)) / 6
    chart = page.locator("figure[data-chart=curves]")
    chart.scroll_into_view_if_needed()
    chart.locator(".main-svg").first.wait_for()
    chart.locator("input[name=less]").check()
    said = hover(page, chart, "gated-3", 7)
    assert f"gated-3 less plain, epoch 8: {float(f'{mean:.4g}'):g}" in said


def test_blocks_can_be_shown_and_a_drag_zooms(page):
    chart = page.locator("figure[data-chart=curves]")
    chart.scroll_into_view_if_needed()
    chart.locator(".main-svg").first.wait_for()
    count = "plot => plot.data.length"
    before = chart.locator(".plot").evaluate(count)
    chart.locator("input[name=blocks]").check()
    assert chart.locator(".plot").evaluate(count) == before + 8 * 6
    chart.locator("input[name=less]").check()
    assert chart.locator(".plot").evaluate(count) == before + 7 * 6 - 2, "the baseline is gone"
    title = "p => p.layout.yaxis.title.text"
    assert chart.locator(".plot").evaluate(title) == "validation accuracy less plain, points"
    chart.locator("input[name=less]").uncheck()
    chart.locator("select").select_option("train_loss")
    assert chart.locator(".plot").evaluate(title) == "training loss"
    wide = chart.locator(".plot").evaluate("p => p._fullLayout.xaxis.range.slice()")
    box = chart.locator(".plot").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 200, steps=4)
    page.mouse.up()
    zoomed = chart.locator(".plot").evaluate("p => p._fullLayout.xaxis.range.slice()")
    assert wide[0] < zoomed[0] < zoomed[1] < wide[1]


def test_every_link_resolves_and_figures_come_out_of_the_page(page, folder):
    links = page.locator("a").evaluate_all(
        "links => links.map((a) => [a.getAttribute('href'), a.download, a.dataset.drawing ?? ''])"
    )
    for target, download, drawing in links:
        if target.startswith("#"):
            assert page.evaluate("id => !!document.getElementById(id)", target[1:]), target
        else:
            assert download and (drawing or target.startswith("data:")), target
    page.locator("#claim-D1 summary").click()
    for kind, start in (("svg", b"<svg"), ("png", b"\x89PNG")):
        with page.expect_download() as waited:
            page.locator(f"#claim-D1 a[data-drawing={kind}]").first.click()
        content = Path(waited.value.path()).read_bytes()
        assert content.startswith(start) and b"var(--" not in content
        assert waited.value.suggested_filename.endswith(f"D1.forest.{kind}")
        if kind == "svg":
            used = set(re.findall(r'href="#([^"]+)"', content.decode()))
            there = set(re.findall(r'\bid="([^"]+)"', content.decode()))
            assert used and used <= there, "the letters must come along"
    with page.expect_download() as waited:
        page.locator("#claim-D1 a", has_text="CSV").first.click()
    assert Path(waited.value.path()).read_text().startswith("claim,claim_verdict,arm,against")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(browser, folder, scheme):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    opened = context.new_page()
    opened.goto((folder / "index.html").as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert opened.evaluate("document.documentElement.scrollWidth") == 390
    assert opened.locator("figure .narrow svg").first.is_visible()
    assert not opened.locator("figure .wide:not(.scroll) svg").first.is_visible()
    broad = opened.locator("figure .scroll").first
    assert broad.evaluate("box => box.scrollWidth > box.clientWidth"), "it scrolls in its place"
    paper = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 27)"}[scheme]
    ink = json.loads(opened.evaluate("JSON.stringify(colour('--ink'))"))
    assert ink == {"light": "#22272b", "dark": "#e6eaed"}[scheme]
    context.close()
