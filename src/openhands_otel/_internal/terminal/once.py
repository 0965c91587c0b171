"""One state as lines, for ``watch --once``: on a terminal, in a pipe."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from openhands_otel._internal.facts import FAILURES
from openhands_otel._internal.terminal.columns import COLUMNS
from openhands_otel._internal.terminal.headline import connection, spent_line
from openhands_otel._internal.terminal.layout import Layout
from openhands_otel._internal.terminal.listing import Listing
from openhands_otel._internal.terminal.live import Live
from openhands_otel._internal.terminal.trouble import trouble_lines


def render(live: Live, width: int) -> Group:
    """The totals in a line, problems under it, then a line for each conversation."""
    listing = Listing(live, {}, unfolded=True)
    listing.order()
    lines = Layout(COLUMNS).fit(listing.rows, live.now(), width)
    failed = sum(stats.outcome in FAILURES for stats in live.stats)
    headline = spent_line(live.totals, None, None, failed, width)
    age = connection(live, width)
    if headline.cell_len + 2 + age.cell_len <= width:
        headline.append("  ").append(age)
    rows = [lines.row(at) for at in range(len(listing.rows))]
    return Group(headline, *trouble_lines(live.receiver, live.now(), width), Text(), lines.heading(), *rows)
