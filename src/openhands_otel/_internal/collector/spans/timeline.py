"""Spans as a timeline: a tree in rows, what runs now open-ended in it, and whatever spans claim of their parents.

A parent's span ends last. Until it comes its children stand under a row in its place, which is named from what the
conversation's metrics say runs now. Where nothing runs any more that row is missing: its span is lost, or not sent yet.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from openhands_otel._internal.collector.spans.span import SpanKind
from openhands_otel.semconv import LLM_ACTIVITY
from openhands_otel.stats import TimelineRow

ENDED: Final = "ended"
RUNNING: Final = "running"
MISSING: Final = "missing"

_FACTS: Final = (
    "agent",
    "model",
    "role",
    "cost",
    "prompt_tokens",
    "completion_tokens",
    "outcome",
    "error_type",
    "has_content",
)


@dataclass(frozen=True, slots=True)
class TimelineSpan:
    """A span, in the order of its columns; times are unix seconds."""

    trace: str
    span: str
    parent: str
    conversation: str
    service: str
    kind: str
    name: str
    begun: float
    ended: float
    facts: str


@dataclass(frozen=True, slots=True)
class Now:
    """What the metrics of a conversation say; ``since`` and ``run_begun`` are unix seconds."""

    parent: str | None = None
    agent: str | None = None
    service: str | None = None
    running: bool = False
    run_begun: float | None = None
    activity: str | None = None
    since: float | None = None

    @property
    def run_name(self) -> str:
        """What the span of a run is called."""
        return f"invoke_agent {self.agent or ''}".rstrip()


@dataclass(slots=True, eq=False)
class _TimelineNode:
    id: str
    kind: str
    name: str
    begun: float
    ended: float | None
    state: str = ENDED
    conversation: str = ""
    span: TimelineSpan | None = None
    parent: _TimelineNode | None = None
    children: list[_TimelineNode] = field(default_factory=list["_TimelineNode"])


def rows_of(spans: Iterable[TimelineSpan], wanted: Collection[str], now: Mapping[str, Now]) -> list[TimelineRow]:
    """Rows from the top down, each followed by those below it.

    Args:
        spans: All of the traces that are concerned.
        wanted: The conversation that is shown, and those under it.
        now: What is known of these and of those above, parents first.
    """
    timeline = _Timeline(spans, wanted, now)
    timeline.connect()
    timeline.open_up()
    return timeline.rows()


class _Timeline:
    def __init__(self, spans: Iterable[TimelineSpan], wanted: Collection[str], now: Mapping[str, Now]) -> None:
        self._wanted = wanted
        self._now = now
        self._by_span = {(span.trace, span.span): _node(span) for span in spans}
        self._places: dict[tuple[str, str], _TimelineNode] = {}
        """What stands in the place of spans that are not here."""
        self._open_runs: dict[str, _TimelineNode] = {}
        self._open_steps: dict[str, _TimelineNode] = {}
        """What runs now, by conversation: a call or a tool."""

    def connect(self) -> None:
        """Have each node find its parent, and none be its own ancestor."""
        for node in self._by_span.values():
            span = node.span
            assert span is not None
            node.parent = self._by_span.get((span.trace, span.parent)) if span.parent else None
        safe: set[int] = set()
        for node in self._by_span.values():
            path: dict[int, _TimelineNode] = {}
            above: _TimelineNode | None = node
            while above is not None and id(above) not in safe:
                if id(above) in path:
                    # A circle: it is cut at one of its members.
                    above.parent = None
                    break
                path[id(above)] = above
                above = above.parent
            safe |= path.keys()
        for node in self._by_span.values():
            if node.parent is not None:
                node.parent.children.append(node)

    def open_up(self) -> None:
        """Put up what runs now, and places for parents that are not here."""
        for conversation, now in self._now.items():
            if now.running:
                self._open(conversation, now)
        orphans = [node for node in self._by_span.values() if node.parent is None and node.conversation]
        # The newest first: what runs now is where they stand.
        for node in sorted(orphans, key=lambda node: -(node.ended or node.begun)):
            span = node.span
            if span is None or not span.parent or (span.trace, span.parent) in self._by_span:
                continue
            place = self._place_for(node, span) if node.conversation in self._wanted else None
            if place is not None:
                _hang(node, place)

    def rows(self) -> list[TimelineRow]:
        """What is wanted with what is below it, and what is above."""
        roots = self._shown()
        order: list[tuple[_TimelineNode, int]] = []
        waiting = [(root, 0) for root in sorted(roots[0], key=_order, reverse=True)]
        while waiting:
            node, depth = waiting.pop()
            order.append((node, depth))
            shown = (child for child in node.children if id(child) in roots[1])
            waiting += [(child, depth + 1) for child in sorted(shown, key=_order, reverse=True)]
        below = [0] * len(order)
        path: list[int] = []
        for number, (_, depth) in enumerate(order):
            del path[depth:]
            for above in path:
                below[above] += 1
            path.append(number)
        return [_row(node, depth, count) for (node, depth), count in zip(order, below, strict=True)]

    def _shown(self) -> tuple[list[_TimelineNode], set[int]]:
        """Roots, and all that is shown."""
        nodes = [*self._by_span.values(), *self._places.values()]
        nodes += [*self._open_runs.values(), *self._open_steps.values()]
        shown: dict[int, _TimelineNode] = {}
        waiting = [node for node in nodes if node.conversation in self._wanted]
        first = list(waiting)
        while waiting:
            node = waiting.pop()
            if id(node) not in shown:
                shown[id(node)] = node
                waiting += node.children
        for node in first:
            above = node.parent
            while above is not None and id(above) not in shown:
                shown[id(above)] = above
                above = above.parent
        return [node for node in shown.values() if node.parent is None], set(shown)

    def _open(self, conversation: str, now: Now) -> None:
        begun = now.run_begun or now.since
        if begun is None:
            return
        run = _TimelineNode(f"run/{conversation}", SpanKind.RUN, now.run_name, begun, None, RUNNING, conversation)
        self._open_runs[conversation] = run
        if now.activity is not None:
            kind = SpanKind.CALL if now.activity == LLM_ACTIVITY else SpanKind.TOOL
            name = "chat" if kind is SpanKind.CALL else f"execute_tool {now.activity}"
            step = _TimelineNode(f"now/{conversation}", kind, name, now.since or begun, None, RUNNING, conversation)
            self._open_steps[conversation] = step
            _hang(step, run)
        above = self._open_at(now.parent)
        if above is not None:
            _hang(run, above)

    def _open_at(self, conversation: str | None) -> _TimelineNode | None:
        """What a sub-agent of a conversation runs in: its open tool, else its open run."""
        step = self._open_steps.get(conversation or "")
        if step is not None and step.kind == SpanKind.TOOL:
            return step
        return self._open_runs.get(conversation or "")

    def _place_for(self, node: _TimelineNode, span: TimelineSpan) -> _TimelineNode | None:
        """Where a span stands whose parent is not here; None where nothing of ours is above it."""
        key = span.trace, span.parent
        if key in self._places:
            return self._places[key]
        now = self._now.get(node.conversation, Now())
        is_run = node.kind == SpanKind.RUN
        owner = now.parent if is_run else node.conversation
        if owner is None:
            return None
        place = self._open_place(owner, node, is_run)
        if place is None or place in self._places.values():
            beside = place is not None and is_run
            place = self._missing(key, owner, is_run)
            if beside:
                # Several tools run at a time, and the metrics name one of them.
                place.state, place.ended = RUNNING, None
                _hang(place, self._open_runs[owner])
        self._places[key] = place
        return place

    def _open_place(self, owner: str, node: _TimelineNode, is_run: bool) -> _TimelineNode | None:
        run = self._open_runs.get(owner)
        if run is None or (node.ended or node.begun) < run.begun - 1:
            return None
        step = self._open_steps.get(owner)
        # By its middle: a call may end at the moment at which a tool begins, and their stamps come from two clocks.
        middle = (node.begun + (node.ended or node.begun)) / 2
        in_tool = step is not None and step.kind == SpanKind.TOOL and middle >= step.begun
        # An LLM call that a tool makes is the tool's; what an agent itself does is the run's.
        return step if in_tool and (is_run or node.kind == SpanKind.CALL) else run

    def _missing(self, key: tuple[str, str], owner: str, is_run: bool) -> _TimelineNode:
        known = self._now.get(owner, Now())
        name, kind = ("execute_tool", SpanKind.TOOL) if is_run else (known.run_name, SpanKind.RUN)
        return _TimelineNode(f"{key[0]}/{key[1]}", kind, name, float("inf"), 0.0, MISSING, owner)


def _hang(node: _TimelineNode, parent: _TimelineNode) -> None:
    node.parent = parent
    parent.children.append(node)
    parent.begun = min(parent.begun, node.begun)
    if parent.state == MISSING:
        parent.ended = max(parent.ended or 0.0, node.ended or node.begun)


def _node(span: TimelineSpan) -> _TimelineNode:
    name = f"{span.trace}/{span.span}"
    return _TimelineNode(name, span.kind, span.name, span.begun, span.ended, conversation=span.conversation, span=span)


def _order(node: _TimelineNode) -> tuple[float, str]:
    return node.begun, node.id


def _row(node: _TimelineNode, depth: int, below: int) -> TimelineRow:
    span = node.span
    facts: dict[str, Any] = {} if span is None else json.loads(span.facts)
    return TimelineRow(
        id=node.id,
        depth=depth,
        below=below,
        kind=node.kind,
        name=node.name,
        state=node.state,
        begun=node.begun,
        ended=node.ended,
        trace_id=None if span is None else span.trace,
        span_id=None if span is None else span.span,
        conversation_id=node.conversation or None,
        service=None if span is None else span.service,
        **{name: facts[name] for name in _FACTS if name in facts},
    )
