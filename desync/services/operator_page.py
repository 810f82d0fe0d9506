# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The operator's endpoint: ``/metrics``, ``/healthz``, ``/readyz``, and a page for people at ``/``.

It is apart from what clients are served, off unless asked for, and wants no authorization: it goes
where only the operator gets to. It can't change anything.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from klein import Klein
from twisted.web.server import Site
from twisted.web.template import Element, Tag, XMLString, flattenString, renderer, tags

from .metrics import CONTENT_TYPE
from .operator_views import RequestsView

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.web.iweb import IRequest

    from .figures import Figures, Rates, Snapshot
    from .operator_views import View

_HEADERS: Final = (
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)

_PAGE: Final = """\
<html xmlns="http://www.w3.org/1999/xhtml"
      xmlns:t="http://twistedmatrix.com/ns/twisted.web.template/0.1" lang="en">
<head>
<title t:render="title"/>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta http-equiv="refresh" content="10"/>
<style>
:root { color-scheme: light dark; --line: #8884; --dim: #777; --good: #1a7f37; --bad: #c62828; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line);
         vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: normal; color: var(--dim); width: 14rem; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1rem; }
.tile { border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem; }
.tile b { display: block; font-size: 1.25rem; white-space: nowrap;
          font-variant-numeric: tabular-nums; }
.tile span, .dim { color: var(--dim); }
.ready { color: var(--good); } .not-ready { color: var(--bad); }
code { font: .9em ui-monospace, monospace; }
</style>
</head>
<body>
<h1 t:render="title"/>
<p><span t:render="state"/></p>
<div class="tiles" t:render="tiles"/>
<h2>What it serves</h2>
<table id="about" t:render="about"/>
<h2 t:render="heading"/>
<table id="requests" t:render="requests"/>
<h2>The last errors</h2>
<table id="troubles" t:render="troubles"/>
<p class="dim">For programs: <code>/metrics</code>, <code>/healthz</code>, <code>/readyz</code>.
This page renews itself every ten seconds.</p>
</body>
</html>
"""


class Page(Element):
    """
    The page for people.

    :param title: what the server is.
    :param snapshot: the figures of this moment.
    :param rates: requests, bytes sent and bytes received a second.
    :param view: what is shown of them.
    """

    loader = XMLString(_PAGE)

    def __init__(
        self,
        title: str,
        figures: Figures,
        snapshot: Snapshot,
        rates: tuple[float, float, float],
        now: float,
        view: View | None = None,
    ) -> None:
        super().__init__()
        self._view = view or RequestsView()
        self._title = title
        self._figures = figures
        self._snapshot = snapshot
        self._rates = rates
        self._now = now

    @renderer
    def title(self, request: IRequest | None, tag: Tag) -> Tag:
        return tag(self._title)

    @renderer
    def state(self, request: IRequest | None, tag: Tag) -> Tag:
        if self._figures.is_ready():
            return tag("ready", class_="ready", id="state")
        return tag("not ready", class_="not-ready", id="state")

    @renderer
    def heading(self, request: IRequest | None, tag: Tag) -> Tag:
        return tag(self._view.heading)

    @renderer
    def tiles(self, request: IRequest | None, tag: Tag) -> Tag:
        shown = self._view.tiles(self._snapshot, self._rates)
        return tag(
            *(tags.div(tags.b(value), tags.span(name), class_="tile") for value, name in shown)
        )

    @renderer
    def about(self, request: IRequest | None, tag: Tag) -> Tag:
        return tag(*(_row(name, value) for name, value in self._figures.about().items()))

    @renderer
    def requests(self, request: IRequest | None, tag: Tag) -> Tag:
        return tag(*(_row(*row, number=True) for row in self._view.rows(self._snapshot)))

    @renderer
    def troubles(self, request: IRequest | None, tag: Tag) -> Tag:
        troubles = self._figures.troubles.latest()
        if not troubles:
            return tag(_row("none", ""))
        return tag(*(_row(_ago(self._now - when), what) for when, what in troubles))


def _row(name: str, value: str, *, number: bool = False) -> Tag:
    cell = tags.td(value, class_="number") if number else tags.td(value)
    return tags.tr(tags.th(name), cell)


def _ago(seconds: float) -> str:
    seconds = max(0, int(seconds))
    if seconds < 120:
        return f"{seconds} s ago"
    if seconds < 7200:
        return f"{seconds // 60} min ago"
    return f"{seconds // 3600} h ago"


class OperatorApp:
    """
    The endpoint.

    :param title: what the server is.
    :param figures: what is shown.
    :param rates: what is done a second.
    :param now: gives seconds since 1970.
    :param view: what is shown of the figures.
    """

    app = Klein()

    def __init__(
        self,
        title: str,
        figures: Figures,
        rates: Rates,
        now: Callable[[], float] = time.time,
        view: View | None = None,
    ) -> None:
        self._title = title
        self._figures = figures
        self._rates = rates
        self._now = now
        self._view = view or RequestsView()

    def site(self) -> Any:
        """Make what listens."""
        site: Any = Site(self.app.resource(), timeout=60)
        site.displayTracebacks = False
        site.noisy = False
        # Asked for every few seconds: nobody wants to read that.
        site.log = lambda request: None
        return site

    @app.route("/", methods=["GET", "HEAD"])
    async def page(self, request: IRequest) -> bytes:
        snapshot = await self._figures.snapshot()
        _set_headers(request, "text/html; charset=utf-8")
        rates, now = self._rates.per_second(), self._now()
        page = Page(self._title, self._figures, snapshot, rates, now, self._view)
        text: bytes = await flattenString(request, page)
        return b"<!DOCTYPE html>\n" + text

    @app.route("/metrics", methods=["GET", "HEAD"])
    async def metrics(self, request: IRequest) -> str:
        snapshot = await self._figures.snapshot()
        _set_headers(request, CONTENT_TYPE)
        return self._view.metrics(snapshot)

    @app.route("/healthz", methods=["GET", "HEAD"])
    def health(self, request: IRequest) -> str:
        _set_headers(request, "text/plain; charset=utf-8")
        return "ok\n"

    @app.route("/readyz", methods=["GET", "HEAD"])
    def ready(self, request: IRequest) -> str:
        _set_headers(request, "text/plain; charset=utf-8")
        if self._figures.is_ready():
            return "ready\n"
        request.setResponseCode(503)
        return "not ready\n"


def _set_headers(request: Any, content_type: str) -> None:
    for name, value in (("Content-Type", content_type), *_HEADERS):
        request.setHeader(name, value)
