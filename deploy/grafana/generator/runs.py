"""Runs: each conversation with its state, cost and trace; what runs now; what is stuck."""

from __future__ import annotations

import json
from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.generator.frame import Row, dashboard
from deploy.grafana.generator.panels import (
    COUNT,
    DOLLARS,
    SECONDS,
    SHARE,
    TOKENS,
    TRACES,
    WIDTH,
    Column,
    Query,
    alarm,
    bars,
    graph,
    number,
    rows,
)
from deploy.grafana.generator.queries import INTERVAL, RANGE, WHERE, grown, label, quantile, ratio, select
from openhands_otel import semconv

ID: Final = label(semconv.CONVERSATION_ID)
PARENT: Final = label(semconv.CONVERSATION_PARENT_ID)
TRACE: Final = label(semconv.CONVERSATION_TRACE_ID)
STATUS: Final = label(semconv.CONVERSATION_STATUS)
ACTIVITY: Final = label(semconv.CONVERSATION_ACTIVITY)
AGENT: Final = label(semconv.AGENT_NAME)
OUTCOME: Final = label(semconv.RUN_OUTCOME)
TYPE: Final = label(semconv.TOKEN_TYPE)
RUNNING: Final = f'{STATUS}="{semconv.Status.RUNNING}"'

WITHOUT_PROGRESS: Final = "openhands:conversation:without_progress"


def _latest(metric: semconv.Metric, by: str, passing: str = "") -> str:
    """Of the values that a label had in the range, the last one of each conversation, also of those that have ended.

    What lived too briefly for a look every ``$__interval`` still left samples; which came last they do not say, so
    values that are ``passing`` (a pattern) give way to others.
    """
    known = f'{by}!=""'
    seen = f"max by ({ID}, {by}) (max_over_time(timestamp({select(metric, known)})[{RANGE}:{INTERVAL}]))"
    brief = f"max by ({ID}, {by}) (last_over_time({select(metric, known)}[{RANGE}]))"
    if passing:
        lasting = f"max by ({ID}, {by}) (last_over_time({select(metric, known, f'{by}!~"{passing}"')}[{RANGE}]))"
        brief = f"1 + {lasting} or {brief}"
    return f"topk by ({ID}) (1, {seen} or {brief})"


def _tokens(*kinds: semconv.TokenType) -> str:
    return grown(semconv.CONVERSATION_TOKENS, f'{TYPE}=~"{"|".join(kinds)}"', by=[ID])


def _trace_link() -> str:
    panes = {
        "trace": {
            "datasource": TRACES,
            "queries": [{"refId": "A", "datasource": {"type": "jaeger", "uid": TRACES}, "query": "${__value.raw}"}],
            "range": {"from": "now-7d", "to": "now"},
        }
    }
    return f"/explore?schemaVersion=1&panes={json.dumps(panes, separators=(',', ':'))}"


def now() -> Row:
    status, children = select(semconv.CONVERSATION_STATE, RUNNING), select(semconv.CONVERSATION_INFO, f'{PARENT}!=""')
    return Row(
        "Now",
        [
            number("Running", "Conversations that run.", COUNT, Query(f"sum({select(semconv.ACTIVE_CONVERSATIONS)})")),
            number(
                "Sub-agents",
                "Conversations among them that another one started.",
                COUNT,
                Query(f"count({children} and on ({ID}) {status}) or vector(0)"),
            ),
            number(
                "LLM calls under way",
                "Calls that wait for an answer.",
                COUNT,
                Query(f"sum({select(semconv.ACTIVE_CALLS)})"),
            ),
            number("Tools under way", "Tool calls that run.", COUNT, Query(f"sum({select(semconv.ACTIVE_TOOLS)})")),
            alarm(
                "Without progress",
                "Conversations that have been running for 15 minutes without an LLM response.",
                COUNT,
                Query(f"count({WITHOUT_PROGRESS}{{{WHERE}}}) or vector(0)"),
            ),
            alarm(
                "Stuck", "Runs that OpenHands stopped as stuck, in the range.", COUNT, Query(grown(semconv.STUCK_RUNS))
            ),
            number("Condensed", "Histories condensed in the range.", COUNT, Query(grown(semconv.CONDENSATIONS))),
            number("Runs", "Runs that ended in the range.", COUNT, Query(grown(semconv.RUN_DURATION, part="_count"))),
        ],
    )


def conversations() -> Row:
    info = f"max by ({ID}, job, {AGENT}, {PARENT}) (last_over_time({select(semconv.CONVERSATION_INFO)}[{RANGE}]))"
    cached = ratio(_tokens(semconv.TokenType.CACHE_READ), _tokens(semconv.TokenType.INPUT))
    fill = ratio(
        f"max by ({ID}) (last_over_time({select(semconv.CONVERSATION_CONTEXT_TOKENS)}[{RANGE}]))",
        f"max by ({ID}) (last_over_time({select(semconv.CONVERSATION_CONTEXT_LIMIT)}[{RANGE}]))",
    )
    at_work = f"count_over_time({select(semconv.CONVERSATION_STATE, RUNNING)}[{RANGE}:{INTERVAL}])"
    running = f"$__interval_ms / 1000 * max by ({ID}) ({at_work})"
    passing = f"{semconv.Status.IDLE}|{semconv.Status.RUNNING}"
    columns = [
        Column("Conversation", label=ID),
        Column("Service", info, label="job"),
        Column("Agent", label=AGENT),
        Column("Status", _latest(semconv.CONVERSATION_STATE, STATUS, passing), label=STATUS),
        Column("Cost", grown(semconv.CONVERSATION_COST, by=[ID]), DOLLARS),
        Column("Tokens", _tokens(semconv.TokenType.INPUT, semconv.TokenType.OUTPUT), TOKENS),
        Column("Calls", grown(semconv.CONVERSATION_CALLS, by=[ID])),
        Column("From the cache", cached, SHARE),
        Column("Context fill", fill, SHARE),
        Column("Running for", running, SECONDS),
        Column("Doing", f"max by ({ID}, {ACTIVITY}) ({select(semconv.CONVERSATION_NOW)})", label=ACTIVITY),
        Column("Started by", label=PARENT),
        Column("Trace", _latest(semconv.CONVERSATION_INFO, TRACE), label=TRACE, link=_trace_link()),
    ]
    return Row(
        "Conversations",
        [
            rows(
                "Conversations",
                "All that were heard of in the range; cost, tokens and calls are those of the range, exactly. What a "
                "sub-agent spends stands in its own row.",
                columns,
                sort="Cost",
                height=14,
            )
        ],
    )


def outcomes() -> Row:
    return Row(
        "Runs in the range",
        [
            graph(
                "Running by service",
                "Conversations that run, by service.",
                COUNT,
                Query(f"sum by (job) ({select(semconv.ACTIVE_CONVERSATIONS)})", "{{job}}"),
                width=WIDTH // 4,
            ),
            bars(
                "How runs ended",
                "Runs by outcome.",
                COUNT,
                Query(grown(semconv.RUN_DURATION, by=[OUTCOME], part="_count"), f"{{{{{OUTCOME}}}}}"),
            ),
            bars(
                "How long runs take",
                "Percentiles of the duration of runs, by the histogram's buckets.",
                SECONDS,
                *(Query(quantile(share, semconv.RUN_DURATION), f"p{share * 100:.0f}") for share in (0.5, 0.95, 0.99)),
            ),
            bars(
                "What runs cost",
                "Percentiles of the cost of runs, by the histogram's buckets.",
                DOLLARS,
                *(Query(quantile(share, semconv.RUN_COST), f"p{share * 100:.0f}") for share in (0.5, 0.95, 0.99)),
            ),
        ],
    )


def runs() -> Dashboard:
    description = "Conversations: what they do, what they cost, which of them need you."
    return dashboard("openhands-runs", "Runs", description, [now(), conversations(), outcomes()], since="now-1h")
