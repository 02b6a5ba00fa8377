"""The page: self-contained, escaped, complete, honest about what is missing, deterministic."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from analysis.frames import study_frames
from records.store import Store
from reports.markup import Glyphs, as_json, inline, minus
from reports.origin import missing, setting
from reports.render import render, without_drawings


@pytest.fixture(scope="module")
def store(made, tmp_path_factory) -> Store:
    """A realistic study, one in trouble, one that has not begun."""
    root = tmp_path_factory.mktemp("results")
    made.make_results(root, made.realistic(6))
    made.make_results(
        root,
        {"plain": [0.8, 0.7], "gated-1": [0.9], "gated-2": [0.9, None]},
        name="trouble",
        preset="smoke",
        question='Is <b>this</b> & that "escaped"?',
        notes={"gated-1": "a <script>alert(1)</script> note"},
    )
    made.make_results(root, {"plain": [], "gated-1": []}, name="waiting")
    return Store(root)


@pytest.fixture(scope="module")
def report(store):
    return render(store)


@pytest.fixture(scope="module")
def page(report) -> str:
    return report.files["index.html"].decode()


def test_equal_records_give_equal_reports(store, report):
    again = render(Store(store.root))
    assert again.files == report.files


def test_the_report_has_all_its_files(report):
    stems = ["depth.reference.fashion_mnist", "trouble.smoke.fashion_mnist"]
    figures = ["differences", "costs", "macs", "convergence"]
    drawn = [f"{stem}.{figure}" for stem in stems for figure in figures]
    drawn += [f"{stems[0]}.D1.forest", f"{stems[0]}.D1.slopes"]
    expected = {"index.html", "manifest.json"}
    expected |= {f"figures/{name}.{kind}" for name in drawn for kind in ("svg", "png")}
    told = ["claims", *stems, f"{stems[0]}.claims"]
    expected |= {f"tables/{name}.{kind}" for name in told for kind in ("csv", "md", "tex")}
    assert report.files.keys() == expected
    assert [table.title.split(":")[0] for table in report.tables] == [
        "Claims",
        "depth (reference)",
        "trouble (smoke)",
    ]


class Reader(HTMLParser):
    """Which tags are open, and every id, link and source of a page."""

    VOID = ("meta", "link", "br", "wbr", "hr", "img", "input")

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.note(tag, dict(attrs))

    def handle_startendtag(self, tag, attrs):
        self.note(tag, dict(attrs))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def note(self, tag, attributes):
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if tag == "a" else []
        loads = ("src", "srcset", "data", "href", "action")
        self.loads += [attributes[name] for name in loads if name in attributes and tag != "a"]


def test_the_page_is_well_formed_and_needs_nothing_else(page, report):
    reader = Reader(page)
    assert reader.open == []
    assert reader.loads == [], "something is fetched"
    ours = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "@import" not in ours and not re.search(r"url\((?!#)", ours)
    assert "default-src 'none'" in ours, "should it try to load anything, it must not"
    assert len(reader.ids) == len(set(reader.ids)), "drawings share ids"
    for link in reader.links:
        found = link.removeprefix("#") in reader.ids if link[0] == "#" else link in report.files
        found = found or link.startswith("data:text/")
        assert found, link
    used = re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', ours)
    assert used and set(used) <= set(reader.ids), "a drawing lost its parts"


def test_every_drawing_is_inline_in_both_widths_with_a_label(page):
    drawings = re.findall(r'<svg role="img".*?</svg>', page, flags=re.DOTALL)
    assert len(drawings) == 2 * (2 * 4 + 2)
    for drawing in drawings:
        ElementTree.fromstring(drawing)
        head = drawing[: drawing.index(">")]
        assert 'role="img"' in head and "aria-label=" in head and "viewBox" in head
        assert " width=" not in head and " height=" not in head


def test_text_from_a_study_is_escaped(page):
    assert "<b>this</b>" not in page and "alert(1)</script>" not in page
    assert "\\u003cscript\\u003ealert(1)" in as_json({"x": "<script>alert(1)"})
    assert "Is &lt;b&gt;this&lt;/b&gt; &amp; that" in page


def test_the_page_says_what_people_need(page):
    bare = re.sub(r"<script.*?</script>", " ", page, flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", " ", without_drawings(bare.encode()).decode())
    text = re.sub(r"\s+", " ", text)
    for words in (
        "Does depth inside a convolution help",
        "7 arms, 6 blocks, 42 trials",
        "preset reference",
        "0 of 8 claims have a verdict. D1: no verdict yet; C1, C2, C3, C4, C5, C6, D2: not run "
        "(no data).",
        "5&nbsp;% a claim",
        "D1 accuracy and cost move with the number of layers \u2026 no verdict yet depth, "
        "reference, fashion_mnist: 6 of 10 blocks (18 of 30 trials)",
        "python -m ablations run scattering",
        "margin 0.3 points",
        "judged at 10 blocks",
        "control: the training parameters of gated-2",
        "epochs 8, batch_size 128",
        "ResNet, depth 8",
        "commit 0123456789ab",
        "torch 2.14.1, device cpu, threads 1",
        "MDConv2d, width 8, depth 2",
        "2 blocks: fewer than 6 cannot decide anything",
        "Still to run: gated-1: blocks 1.",
        "gated-2: 1 of 2 trials diverged",
        "Planned, nothing recorded yet waiting",
    ):
        assert words in text, words
    assert "✓ supported" not in text and "NaN" not in text and "None" not in text


def test_signs_are_typographic():
    cells = ("-0.5 to +1.2", "a (-1.5 to -0.2)", "-", "gated-2 - wide-2", "6")
    assert [minus(cell) for cell in cells] == [
        "−0.5 to +1.2", "a (−1.5 to −0.2)", "–", "gated-2 - wide-2", "6",
    ]  # fmt: skip


def test_letters_are_once_on_the_page_and_never_two_of_a_name():
    glyphs = Glyphs()
    letter = '<defs>\n <path id="DejaVuSans-1" d="M 1"/>\n</defs>'
    one = f'<svg>{letter}<use xlink:href="#DejaVuSans-1"/></svg>'
    for indent in (" ", "   "):
        made = inline(one.replace("\n ", f"\n{indent}").encode(), "p", "x", glyphs)
        assert made.endswith('<use xlink:href="#DejaVuSans-1"/></svg>') and "<defs>" not in made
    assert glyphs.to_svg().count('id="DejaVuSans-1"') == 1
    with pytest.raises(ValueError, match="DejaVuSans-1"):
        glyphs.taken_from(one.replace("M 1", "M 2"))


def test_ids_of_a_drawing_are_made_its_own():
    parts = '<a id="x"/><use xlink:href="#x" clip="url(#x)"/>'
    svg = f'<?xml?><svg width="9pt" height="9pt" viewBox="0">{parts}</svg>'.encode()
    assert inline(svg, "p", 'a "b" <c>') == (
        '<svg role="img" aria-label="a &quot;b&quot; &lt;c>" viewBox="0"><a id="p-x"/>'
        '<use xlink:href="#p-x" clip="url(#p-x)"/></svg>'
    )


def test_the_manifest_names_versions_files_and_numbers(report):
    manifest = json.loads(report.files["manifest.json"])
    assert manifest["versions"].keys() == {"matplotlib", "freetype", "pillow"}
    assert manifest["files"].keys() == report.files.keys() - {"manifest.json"}
    assert len(manifest["numbers"]) == 10


def test_plans_of_one_name_and_preset_are_told_apart(made, tmp_path):
    for margin in ("a note", "another note"):
        plan = made.make_plan(("plain", "gated-1"), notes={"plain": margin})
        Store(tmp_path).save_plan(plan)
    Store(tmp_path).publish(made.make_record(plan, "plain", 0, 0.5))
    names = [name for name in render(Store(tmp_path)).files if name.endswith("costs.svg")]
    assert len(names) == 2 and plan.hash in "".join(names)


def test_what_is_shared_and_what_differs(made):
    found = setting(made.make_plan())
    assert dict(found.held)["network"] == "ResNet, depth 8, in_channels 1, num_classes 10"
    assert dict(found.held)["each MDConv2d"] == "where all_but_stem, start plain"
    arms = dict(found.arms)
    assert arms["wide-2"] == "Conv2d, width 9.625"
    assert arms["linear-2"] == "MDConv2d, width 8, depth 2, placement ()"


def test_missing_trials_are_named(made, tmp_path):
    plan = made.make_results(
        tmp_path, {"plain": [0.5] * 4, "gated-1": [0.5], "gated-2": [], "gated-3": []}
    )
    assert missing(study_frames(plan, Store(tmp_path))) == [
        "gated-1: blocks 1-3",
        "gated-2, gated-3: blocks 0-3",
    ]


def test_a_folder_without_plans_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"no plan in .*ablations run"):
        render(Store(tmp_path))
