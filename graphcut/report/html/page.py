"""A report as one HTML file: it loads nothing, and runs no script but its own.

1. Templates escape everything; what is not escaped again are figures, which :mod:`graphcut.report.html.svg` escapes.
2. A content security policy allows the page's own style and script by their hashes, and pictures within the page. So
   nothing that a model's file says can run or load anything, whatever it says.
3. The same facts give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from graphcut.report import evaluation_text
from graphcut.report.html import bars, error_figures, exports, gantt, sentences, strip, svg, tradeoff
from graphcut.report.html.report_facts import Facts, SampleError
from graphcut.units import format_bytes

_TEMPLATES = Path(__file__).with_name("templates")
MOST_WORST = 6
"""Samples that are shown as pictures."""


def render(facts: Facts) -> str:
    """Write the report of one split or plan."""
    return _page("report.html", heading=sentences.title(facts), facts=facts, report=_parts(facts))


def render_comparison(splits: Mapping[str, Facts]) -> str:
    """Write the report of several splits side by side; the keys name them."""
    names = [svg.shown(each) for each in splits]
    reports = {
        name: {"strip": _figure(strip.strip(facts, f"strip-{number}")), "facts": facts, **_csv(facts, f"{number}-")}
        for number, (name, facts) in enumerate(zip(names, splits.values(), strict=True), start=1)
    }
    heading = f"{len(splits)} splits side by side: {', '.join(names)}"
    return _page("compare.html", heading=heading, reports=reports, rows=sentences.compared_rows(splits))


def _parts(facts: Facts) -> dict[str, Any]:
    """The figures and words that templates put in their places."""
    swept = [each for each in facts.options if each.name == tradeoff.SWEPT]
    sets = [one for one in facts.sample_sets if one.samples]
    return {
        "badges": sentences.badges(facts),
        "strip": _figure(strip.strip(facts)) if facts.operators else None,
        "segments": _figure(bars.segment_bars(facts)),
        "tradeoff": _figure(tradeoff.tradeoff(facts)) if len(swept) > 1 else None,
        "others": [each for each in facts.options if each.name != tradeoff.SWEPT],
        "pipeline": _figure(gantt.gantt(facts.timeline)) if facts.timeline and facts.timeline.spans else None,
        "worst": _figure(error_figures.worst(facts)) if facts.seams else None,
        "samples": _figure(error_figures.samples(sets)) if sets else None,
        "sets": sets,
        "worst_samples": [(one, sorted(one.samples, key=lambda each: each.sqnr_db)[:MOST_WORST]) for one in sets],
        "cpu": sentences.cpu_rows(facts),
        "method": sentences.method(facts),
        "latex": {
            "segments": escape(exports.segments_latex(facts)),
            **({"combinations": escape(exports.combinations_latex(facts))} if facts.combinations else {}),
        },
        **_csv(facts, ""),
    }


def _csv(facts: Facts, prefix: str) -> dict[str, Any]:
    return {"csv": {f"{prefix}{name}": _link(write(facts)) for name, write in exports.CSV.items()}}


def _page(template: str, **context: Any) -> str:
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; "
        "form-action 'none'"
    )
    return (
        _environment()
        .get_template(template)
        .render(
            policy=policy, style=Markup(style), script=Markup(script), say=sentences, limits=strip.DB_LIMITS, **context
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": format_bytes,
        "shown": svg.shown,
        "decibels": error_figures.decibels,
        "level": error_figures.level,
        "picture": _picture,
        "evaluated": evaluation_text.evaluated,
        "ways": evaluation_text.ways,
        "measured": evaluation_text.measured,
        "zip": zip,
    }
    return environment


def _visible(value: Any) -> Any:
    """Make invisible characters of a text visible; figures and our own texts have none."""
    return svg.shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _figure(drawn: str) -> Markup:
    return Markup(drawn)  # svg.py has escaped it (statement 1)


def _link(text: str) -> str:
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def _picture(sample: SampleError) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(sample.picture or b'').decode()}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
