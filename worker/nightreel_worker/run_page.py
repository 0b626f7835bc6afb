"""The page of a run: one HTML file without scripts, whose pictures are in it, so that it can be kept, mailed and printed."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from html import escape
from importlib.resources import files

from .highlights import Ending, Finished
from .report import RunReport
from .summary import (
    Advice,
    Place,
    advice,
    again,
    by_reason,
    counted,
    dollars,
    duration,
    named,
    spent,
    state,
    state_word,
    total,
    verdict,
    when,
)

Link = Callable[[str], str]
"""The address that leads from the page to an object of the store."""
BAD = ' class="bad"'
COLORS = 9  # of stages, as the style sheet has them


def run_page(report: RunReport, posters: Mapping[str, bytes], link: Link, place: Place) -> bytes:
    """The page in UTF-8. posters: JPEGs by object name; a video without one is a link in words."""
    title = f"Nightreel, {when(report)}: {verdict(report)}"
    parts = (
        *_next(report, place),
        *_endings(report),
        *_sheet(report, posters, link),
        *_money(report),
        *_slowest(report, link),
        *_batches(report),
    )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">""",
            f"<title>{escape(title)}</title>",
            f"<style>\n{files('nightreel_worker').joinpath('run_page.css').read_text(encoding='utf-8')}</style></head>",
            "<body>",
            *_head(report),
            "<main>",
            *parts,
            "</main>",
            _foot(report),
            "</body></html>\n",
        ]
    ).encode()


def _head(report: RunReport) -> Iterator[str]:
    yield f'<header><p class="brand">Nightreel</p><h1>{escape(verdict(report))}</h1>'
    yield f'<p class="soft">{escape(when(report))} · {escape(state(report))}</p>'
    yield '<dl class="figures">'
    for value, name, bad in _figures(report):
        yield f"<div{BAD if bad else ''}><dt>{name}</dt><dd>{escape(value)}</dd></div>"
    yield "</dl></header>"


def _foot(report: RunReport) -> str:
    return (
        f'<footer class="soft small"><p>Run {escape(report.run)}. Times are UTC, dollars those of the price'
        f" {escape(report.price or 'none')}. As of {report.ended_at:%Y-%m-%d %H:%M:%S}.</p></footer>"
    )


def _figures(report: RunReport) -> Iterator[tuple[str, str, bool]]:
    yield f"{report.done:,}", "videos made", False
    yield f"{report.failed:,}", "failed", report.failed > 0
    yield f"{report.cancelled:,}", "called off", False
    yield dollars(report.usd), "in all", False
    if report.done:
        yield dollars(report.usd / report.done), "a video, all shared out", False
    yield dollars(report.shared_usd), "shared: start, idle, end", False
    yield duration(report.seconds), "from start to end", False
    yield f"{report.keyframes:,}", f"keyframes rendered, {report.reused:,} from the store", False


def _next(report: RunReport, place: Place) -> Iterator[str]:
    found = list(advice(report))
    if not found:
        return
    yield '<section aria-labelledby="next"><h2 id="next">What to do next</h2><ol class="next">'
    yield from (_advice(each) for each in found)
    yield "</ol>"
    if any(each.commands for each in found):
        yield f'<p class="soft small">Commands go with:</p><pre>{escape(place.exports)}</pre>'
    yield "</section>"


def _advice(each: Advice) -> str:
    return f"<li>{escape(each.text)}{_commands(each.commands)}</li>"


def _commands(commands: tuple[str, ...]) -> str:
    return f"<pre>{escape(chr(10).join(commands))}</pre>" if commands else ""


def _endings(report: RunReport) -> Iterator[str]:
    if not report.endings:
        return
    yield '<section aria-labelledby="endings"><h2 id="endings">What was not made</h2>'
    yield from map(_reason, by_reason(report))
    told = sum(each.count for each in report.endings)
    if (rest := report.failed + report.cancelled - told) > 0:
        yield f'<p class="soft">{rest:,} more, for other reasons: nightreel status BATCH tells them.</p>'
    yield "</section>"


def _reason(group: list[Ending]) -> str:
    first = group[0]
    batches = (f'<p class="soft small">{escape(named(each))}</p>{_commands(again(each))}' for each in group)
    return (
        f'<div class="ending {first.state}"><h3>{total(group):,} {state_word(first)}</h3>'
        f"<p>{escape(first.reason)}</p>{''.join(batches)}</div>"
    )


def _money(report: RunReport) -> Iterator[str]:
    rows = [(row, f"--c{number % COLORS + 1}") for number, row in enumerate(spent(report))]
    if not rows:
        return
    yield '<section aria-labelledby="money"><h2 id="money">Where time and money went</h2>'
    yield '<div class="bar" aria-hidden="true">'
    yield from (f'<span style="width:{row.share:.3%};background:var({color})"></span>' for row, color in rows)
    yield '</div><div class="scroll"><table><thead><tr><th scope="col">stage</th><th scope="col" class="optional">while</th>'
    yield '<th scope="col" class="n">seconds</th><th scope="col" class="n">share</th><th scope="col" class="n">dollars</th>'
    yield "</tr></thead><tbody>"
    for row, color in rows:
        yield (
            f'<tr><th scope="row"><span class="swatch" style="background:var({color})"></span>{row.stage}</th>'
            f'<td class="optional soft">{row.what}</td><td class="n">{row.seconds:,.1f}</td>'
            f'<td class="n">{row.share:.1%}</td><td class="n">{dollars(row.usd)}</td></tr>'
        )
    yield "</tbody></table></div>"
    yield f'<p class="soft small">{dollars(report.jobs_usd)} stand on receipts, {dollars(report.shared_usd)} on none.</p>'
    yield "</section>"


def _sheet(report: RunReport, posters: Mapping[str, bytes], link: Link) -> Iterator[str]:
    if not report.shown:
        return
    of = f", {len(report.shown)} of {report.done:,}" if report.done > len(report.shown) else ""
    yield f'<section aria-labelledby="videos"><h2 id="videos">Videos{of}</h2><ul class="sheet">'
    for each in report.shown:
        poster = posters.get(poster_name(each))
        yield f'<li><a href="{escape(link(video_name(each)))}"><figure>{_frame(each, poster)}<figcaption>'
        yield f"<strong>{escape(each.job)}</strong><span>{each.duration_s:g} s, {each.width} &times; {each.height}</span>"
        yield f"<span>{dollars(each.usd)}, {counted(each.keyframes, 'keyframe')}</span></figcaption></figure></a></li>"
    yield "</ul></section>"


def _frame(each: Finished, poster: bytes | None) -> str:
    if poster is None:
        return '<div class="frame">no picture here</div>'
    data = base64.b64encode(poster).decode()
    return f'<div class="frame"><img src="data:image/jpeg;base64,{data}" alt="A frame of {escape(each.job)}"></div>'


def _slowest(report: RunReport, link: Link) -> Iterator[str]:
    if not report.slowest:
        return
    yield '<section aria-labelledby="slowest"><h2 id="slowest">What took longest</h2><div class="scroll"><table><thead><tr>'
    yield '<th scope="col">video</th><th scope="col" class="optional">batch</th><th scope="col" class="n">seconds</th>'
    yield '<th scope="col" class="n">keyframes</th><th scope="col" class="n optional">of video</th>'
    yield '<th scope="col" class="n">dollars</th></tr></thead><tbody>'
    for each in report.slowest:
        yield (
            f'<tr><th scope="row"><a href="{escape(link(video_name(each)))}">{escape(each.job)}</a></th>'
            f'<td class="optional soft">{escape(each.batch)}</td><td class="n">{each.seconds:,.1f}</td>'
            f'<td class="n">{each.keyframes:,}</td><td class="n optional">{each.duration_s:g} s</td>'
            f'<td class="n">{dollars(each.usd)}</td></tr>'
        )
    yield "</tbody></table></div></section>"


def _batches(report: RunReport) -> Iterator[str]:
    if not report.batches:
        return
    yield '<section aria-labelledby="batches"><h2 id="batches">Batches</h2><div class="scroll"><table><thead><tr>'
    yield '<th scope="col">batch</th><th scope="col" class="n">made</th><th scope="col" class="n">failed</th>'
    yield '<th scope="col" class="n">called off</th></tr></thead><tbody>'
    for each in report.batches:
        yield f'<tr><th scope="row">{escape(each.batch)}</th><td class="n">{each.done:,}</td>'
        yield f'<td class="n">{each.failed:,}</td><td class="n">{each.cancelled:,}</td></tr>'
    yield "</tbody></table></div></section>"


def poster_name(each: Finished) -> str:
    return f"{each.batch}/{each.job}.jpg"


def video_name(each: Finished) -> str:
    return f"{each.batch}/{each.job}.mp4"
