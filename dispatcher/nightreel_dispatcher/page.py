"""The dispatcher at a glance, for a browser."""

from __future__ import annotations

from html import escape

from .answers import Overview

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .3rem .8rem .3rem 0;
        border-bottom: 1px solid #ddd; overflow-wrap: anywhere } .held { color: #a40000 }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #161616 } th, td { border-color: #444 }
        a { color: #8ab4f8 } .held { color: #ff8a80 } }
"""


def overview_page(found: Overview, store: str) -> str:
    """One screen of HTML, without scripts."""
    queue = found.queue
    held = f'<p class="held">On hold: {escape(found.hold)}</p>' if found.hold is not None else ""
    looked = f"<p>{escape(found.looked.sentence)}</p>" if found.looked else ""
    rows = "".join(
        f'<tr><td><a href="/batches/{escape(each.batch)}">{escape(each.batch)}</a></td><td>{escape(each.title)}</td>'
        f"<td>{each.count}</td><td>{each.enqueued_at:%Y-%m-%d %H:%M} UTC</td></tr>"
        for each in found.batches
    )
    batches = (
        f"<table><tr><th>batch</th><th>from</th><th>jobs</th><th>came in</th></tr>{rows}</table>"
        if rows
        else "<p>No batches yet.</p>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Nightreel</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>Nightreel</h1>{held}<p>Queue: {queue.ready} ready, {queue.delayed} delayed, {queue.leased} held by workers,"
        f" {queue.dead} dead letters. Store: {escape(store)}</p>{looked}<h2>Latest batches</h2>{batches}"
        f'<p>Version {escape(found.version)} · <a href="/openapi.json">OpenAPI</a></p></body></html>'
    )
