"""The page: self-contained, escaped, complete, honest about what is missing, deterministic."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from analysis.frames import study_frames
from records.store import Store
from reports.drawings import Shared, inline, without_drawings
from reports.markup import as_json, minus
from reports.origin import missing, setting
from reports.render import render


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
    figures = ["differences", "costs", "macs", "convergence", "convergence-loss"]
    drawn = [f"{stem}.{figure}" for stem in stems for figure in figures]
    drawn += [f"{stems[0]}.D1.forest", f"{stems[0]}.D1.slopes"]
    expected = {"index.html", "manifest.json"}
    expected |= {f"figures/{name}.{kind}" for name in drawn for kind in ("svg", "png")}
    told = ["claims", *stems, f"{stems[0]}.claims", f"{stems[0]}.noise", f"{stems[0]}.design"]
    told += [f"{stem}.training" for stem in stems]
    expected |= {f"tables/{name}.{kind}" for name in told for kind in ("csv", "md", "tex")}
    assert report.files.keys() == expected
    assert [table.title.split(":")[0] for table in report.tables] == [
        "Claims",
        "depth (reference, fashion_mnist)",
        "trouble (smoke, fashion_mnist)",
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
        found = [attributes[name] for name in loads if name in attributes and tag != "a"]
        self.loads += [target for target in found if target[0] != "#"]  # of this page


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
    used = re.findall(r'(?:<use href="#|url\(#)([^")]+)', ours)
    assert used and set(used) <= set(reader.ids), "a drawing lost its parts"


def test_every_drawing_is_inline_in_both_widths_with_a_label(page):
    drawings = re.findall(r'<svg role="img".*?</svg>', page, flags=re.DOTALL)
    narrow = 2 + 2  # of the claim, and of each study the differences
    assert len(drawings) == 2 * 4 + 2 + narrow
    assert "Convergence: training loss" not in page, "drawn in a file alone: a chart has its curves"
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
        "0 of 11 claims are answered. D1: no verdict yet; C1, C1.own, C2, C3, C4, C5, C6, D2, D3, "
        "D4: not run (no data).",
        "5&nbsp;% a claim",
        "D1 accuracy and cost move with the number of layers \u2026 no verdict yet depth, "
        "reference, fashion_mnist: 6 of 10 blocks (18 of 30 trials of the 3 arms",
        "python -m ablations run scattering",
        "margin 0.3 points",
        "judged at 10 blocks",
        "10 blocks tell",
        "times in five; the margin of 0.3 points takes about",
        "What the words mean",
        "control: the training parameters of gated-2",
        "epochs 8, batch_size 128",
        "fashion_mnist &nbsp;·&nbsp; ResNet, depth 8, width 8; 8 epochs",
        "ResNet, depth 8",
        "commit 0123456789ab",
        "torch 2.14.1, device cpu, threads 1",
        "MDConv2d, width 8, depth 2",
        "3 arms, 1 block (and 1 begun), 5 trials",
        "1 whole block: fewer than 6 cannot decide anything",
        "How the arms train",
        "What the differences are made of",
        "The smallest difference that a number of blocks finds",
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
    shared = Shared()
    letter = '<defs>\n <path id="DejaVuSans-1" d="M 1"/>\n</defs>'
    one = f'<svg>{letter}<use xlink:href="#DejaVuSans-1"/></svg>'
    for indent in (" ", "   "):
        made = inline(one.replace("\n ", f"\n{indent}").encode(), "p", "x", shared)
        assert made.endswith('<use href="#l0"/></svg>') and "<defs>" not in made
    assert shared.to_svg().count('<path id="l0" d="M 1"/>') == 1
    with pytest.raises(ValueError, match="DejaVuSans-1"):
        shared.without_outlines(one.replace("M 1", "M 2"))


def test_styles_are_once_on_the_page():
    shared = Shared()
    line = '<path style="fill: none; stroke: #22272b"/>'
    made = inline(f'<svg>{line}{line}<g style="opacity: 0.5"/></svg>'.encode(), "p", "x", shared)
    assert made.endswith('<path class="k0"/><path class="k0"/><g class="k1"/></svg>')
    assert ".k0{fill: none; stroke: var(--ink)}.k1{opacity: 0.5}" in shared.to_svg()


def test_words_are_once_on_the_page_with_their_places():
    shared = Shared()
    letter = '<use xlink:href="#DejaVuSans-1"/>'
    aside = letter.replace("/>", ' transform="translate(63.5 0)"/>')
    word = f'<g style="fill: red" transform="translate(1 2)">{letter}{aside}</g>'
    svg = f'<svg><defs><path id="DejaVuSans-1" d="M 1"/></defs>{word}{word}</svg>'
    made = inline(svg.encode(), "p", "x", shared)
    once = '<use href="#t0" class="k0" transform="translate(1 2)"/>'
    assert made.endswith(f">{once}{once}</svg>")
    assert '<g id="t0"><use href="#l0"/><use href="#l0" x="63.5"/></g>' in shared.to_svg()


@pytest.mark.parametrize(
    ("styles", "made"),
    [
        (["fill: red"] * 2, '<g class="k0"><use href="#p0"/><use href="#p0"/></g>'),
        (["fill-opacity: 0.5"] * 2, '<g class="k0"><use href="#p0"/><use href="#p0"/></g>'),
        (
            ["opacity: 0.5"] * 2,  # of a group it would be that of the marks together
            '<g><use href="#p0" class="k0"/><use href="#p0" class="k0"/></g>',
        ),
        (
            ["fill: red", "fill: tan"],
            '<g><use href="#p0" class="k0"/><use href="#p0" class="k1"/></g>',
        ),
    ],
)
def test_marks_have_their_style_together_where_they_can(styles, made):
    marks = "".join(f'<use xlink:href="#m" style="{style}"/>' for style in styles)
    svg = f'<svg><path id="m" d="M 1"/><g>{marks}</g></svg>'
    assert inline(svg.encode(), "p", "x", Shared()).endswith(f'<path id="p0" d="M1"/>{made}</svg>')


def test_ids_of_a_drawing_are_made_its_own_and_numbers_short():
    parts = '<g id="axes"><a id="x"/><use xlink:href="#x" clip="url(#x)"/></g>'
    path = '<path d="M 10.123456 5.000001 \nL 3.25 0.071 \n"/><g transform="scale(0.075 -0.075)"/>'
    size = 'width="9pt" height="9pt" viewBox="0"'
    svg = f"<?xml?><svg {size}>{parts}<g>\n<g></g></g>{path}</svg>".encode()
    assert inline(svg, "p", 'a "b" <c>', Shared()) == (
        '<svg role="img" aria-label="a &quot;b&quot; &lt;c>" viewBox="0"><g><a id="p0"/>'
        '<use href="#p0" clip="url(#p0)"/></g><path d="M10.12 5L3.25 0.071"/>'
        '<g transform="scale(0.075 -0.075)"/></svg>'
    )


def test_the_manifest_names_versions_files_and_numbers(report):
    manifest = json.loads(report.files["manifest.json"])
    assert manifest["versions"].keys() == {"matplotlib", "freetype", "pillow"}
    assert manifest["files"].keys() == report.files.keys() - {"manifest.json"}
    assert len(manifest["numbers"]) == 12


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


def test_a_study_of_which_a_claim_is_judged_is_no_trial_run(made, tmp_path):
    """Its claim compares arms that have all their blocks; another arm has none."""
    accuracies = made.realistic(6)
    unfinished = {
        label: values if label != "linear-3" else [] for label, values in accuracies.items()
    }
    made.make_results(tmp_path, unfinished, looks=[6])
    page = render(Store(tmp_path)).files["index.html"].decode()
    assert "0 whole blocks: some arms are not done. A claim is judged by the blocks" in page
    assert "Read this as a trial run" not in page
