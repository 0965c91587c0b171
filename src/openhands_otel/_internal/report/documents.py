"""A report for programs and pages: JSON, CSV, Markdown. What strangers named stays text in each of them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Final

from openhands_otel._internal.report.figures import (
    FIGURE_COLUMNS,
    Line,
    LineKind,
    filled,
    has_names,
    is_lower_bound,
    lines,
    notes,
    period_text,
    share,
)
from openhands_otel._internal.terminal_text import printable, printable_json
from openhands_otel.stats import Spend, SpendGroup

_FORMULA: Final = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What makes a spreadsheet calculate a cell that begins with it; the last four are wide forms of the first."""
_MARKUP: Final = re.compile(r"[\\`*_{}\[\]()#+!|~^$]")
_REFERENCES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", '"': "&quot;"}
_LINK: Final = re.compile(r"(?i)(?<=\w):(?=//)|(?<=www)\.")


def as_json(spend: Spend) -> str:
    """``stats.Spend`` as it is; ``read_cost`` says how much of a cost was read from disk."""
    return printable_json(spend.model_dump_json(indent=2))


def as_csv(spend: Spend) -> str:
    """A row for each group and one for the total; no subtotals, so that rows but the last add up to it."""
    figures = _figures(spend.total, spend.total)
    named = ["name"] if has_names(spend) else []
    head = ["row", *spend.by, *named, *figures]
    rows = (
        [
            line.kind,
            *(cell(line.group.keys.get(name, "")) for name in spend.by),
            *(cell(line.group.name) for _ in named),
            *(cell(value) for value in _figures(line.group, spend.total).values()),
        ]
        for line in lines(spend)
        if line.kind is not LineKind.AROUND
    )
    return written_csv([[cell(each) for each in head], *rows])


def _figures(group: SpendGroup, total: SpendGroup) -> dict[str, Any]:
    tokens = group.accumulated_token_usage
    return {
        "cost_usd": group.accumulated_cost,
        "read_cost_usd": group.read_cost,
        "lower_bound": "yes" if is_lower_bound(group) else "no",
        "share": share(group.accumulated_cost, total.accumulated_cost),
        "prompt_tokens": tokens.prompt_tokens,
        "completion_tokens": tokens.completion_tokens,
        "cache_read_tokens": tokens.cache_read_tokens,
        "cache_write_tokens": tokens.cache_write_tokens,
        "reasoning_tokens": tokens.reasoning_tokens,
        "cache_share": share(tokens.cache_read_tokens, tokens.prompt_tokens),
        "cache_savings_usd": group.cache_savings,
        "llm_calls": group.llm_calls,
        "tool_calls": group.tool_calls,
        "unpriced_calls": group.unpriced_calls,
        "llm_seconds": group.llm_seconds,
        "outcome": group.outcome,
    }


def cell(value: object) -> str:
    """A cell of CSV: numbers in full, without an exponent; text that a spreadsheet would run has a quote in front."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{Decimal(repr(value)):f}"
    if isinstance(value, int):
        return str(value)
    text = printable(str(value))
    return f"'{text}" if text.lstrip()[:1] in _FORMULA and text.strip() else text


def written_csv(rows: Iterable[Sequence[str]]) -> str:
    """Rows of finished cells, as RFC 4180 has them but for the ends of lines."""
    output = io.StringIO()
    csv.writer(output, lineterminator="\n").writerows(rows)
    return output.getvalue().rstrip("\n")


def as_markdown(spend: Spend) -> str:
    """A table as GitHub shows it, such as in a job's summary: a column for each name that it is grouped by."""
    shown = list(lines(spend))
    texts = filled(FIGURE_COLUMNS, shown, spend.total)
    head = [*spend.by, *(column.title for column in texts)] if spend.by else ["", *(column.title for column in texts)]
    depth = max(1, len(spend.by))
    rows = [
        [*_names(line, depth), *(_emphasis(texts[column][at], line) for column in texts)]
        for at, line in enumerate(shown)
    ]
    title = f"**Spend {markdown_text(period_text(spend))}**"
    table = markdown_table([[markdown_text(each) for each in head], *rows], depth)
    return "\n\n".join([title, table, *(markdown_text(note) for note in notes(spend))])


def markdown_table(rows: Sequence[Sequence[str]], names: int) -> str:
    """Rows of finished cells, the head first; the first ``names`` columns are aligned to the left."""
    rule = [":--" if at < names else "--:" for at in range(len(rows[0]))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])


def markdown_text(text: str) -> str:
    """Text that shows as it is: nothing in it is markup, HTML, a link or the end of a cell."""
    shown = _MARKUP.sub(r"\\\g<0>", printable(text))
    shown = "".join(_REFERENCES.get(each, each) for each in shown)
    return _LINK.sub(lambda match: f"&#{ord(match[0])};", shown)


def _names(line: Line, depth: int) -> list[str]:
    name = _emphasis(markdown_text(line.name), line)
    return [name if at == line.depth else "" for at in range(depth)]


def _emphasis(text: str, line: Line) -> str:
    return f"**{text}**" if text and line.kind in (LineKind.TOTAL, LineKind.AROUND) else text


def as_json_of(value: object) -> str:
    """Any other document of ours as JSON."""
    return printable_json(json.dumps(value, indent=2, ensure_ascii=False))
