"""The page: templates, style and scripts of this folder, and what is shown, made one file."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.table import Table
from records.plan import Plan
from reports.claims import ClaimView, summary_line
from reports.drawings import Shared, inline, light_colours
from reports.markup import as_json, data_link, minus, results_first, sort_value
from reports.sections import Section, Speed

HERE = Path(__file__).parent
GENERATOR = "python -m reports build"
LIBRARY = HERE / "plotly" / "plotly-basic.min.js"


def page(
    *,
    views: Sequence[ClaimView],
    sections: Sequence[Section],
    speed: Speed | None,
    waiting: Sequence[Plan],
    claims: Table,
) -> bytes:
    """The page, whole: it loads nothing, and works without the files beside it."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shared = Shared()
    environment.filters.update(
        as_json=as_json,
        data_link=data_link,
        inline=partial(inline, shared=shared),
        minus=minus,
        results_first=results_first,
        short=shared.short,
        sort_value=sort_value,
    )
    text = environment.get_template("page.html.j2").render(
        views=views,
        sections=sections,
        speed=speed,
        waiting=waiting,
        claims=claims,
        answer=summary_line(views),
        generator=GENERATOR,
        style=_asset("page.css"),
        scripts=[_asset("charts.js"), _asset("page.js")],
        library=LIBRARY.read_text(encoding="utf-8"),
        light_colours=light_colours(),
        shared=shared,
    )
    return text.encode()


def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
