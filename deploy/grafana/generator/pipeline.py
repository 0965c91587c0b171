"""Pipeline health: whether what is shown is fresh and whole."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.generator.frame import Row, dashboard
from deploy.grafana.generator.panels import (
    BYTES,
    COUNT,
    DOLLARS,
    PER_SECOND,
    SECONDS,
    SHARE,
    Query,
    alarm,
    graph,
    number,
)
from deploy.grafana.generator.queries import RATE, counted, grown, label, name, ratio, select
from openhands_otel import semconv

ID: Final = label(semconv.CONVERSATION_ID)
EXPORTER: Final = "{{exporter}} {{instance}}"
RECEIVER: Final = "{{receiver}} {{transport}} {{instance}}"


def _collector(what: str) -> tuple[str, str]:
    """Counters of the collector's own, of metric points and of spans."""
    return f"otelcol_{what}_metric_points_total", f"otelcol_{what}_spans_total"


def _all(*counters: str) -> str:
    return " + ".join(f"({counted(each)})" for each in counters)


def _rates(counters: tuple[str, str], by: str, legend: str) -> list[Query]:
    return [
        Query(f"sum by (instance, {by}) (rate({counter}[{RATE}]))", f"{what}: {legend}")
        for counter, what in zip(counters, ("metrics", "spans"), strict=True)
    ]


def state() -> Row:
    silent = f"time() - max(timestamp({name(semconv.ACTIVE_CONVERSATIONS)}))"
    dropped = (*_collector("exporter_send_failed"), *_collector("exporter_enqueue_failed"))
    return Row(
        "In the range shown",
        [
            number("Last heard", "Since the newest word of any agent; each says one a minute.", SECONDS, Query(silent)),
            number(
                "Processes",
                "Processes that were heard within five minutes.",
                COUNT,
                Query(f"count({select(semconv.ACTIVE_CONVERSATIONS)})"),
            ),
            alarm("Dropped", "Points and spans that a collector gave up on.", COUNT, Query(_all(*dropped))),
            alarm(
                "Refused",
                "Points and spans that a collector sent back; agents bring points again.",
                COUNT,
                Query(_all(*_collector("receiver_refused"))),
            ),
            number("Exports failed", "Exports that agents repeated.", COUNT, Query(grown(semconv.FAILED_EXPORTS))),
            alarm(
                "Hook errors",
                "Errors inside our hooks; agents don't feel them.",
                COUNT,
                Query(grown(semconv.HOOK_ERRORS)),
            ),
            alarm("Overflow", "Updates that fell into an overflow bucket.", COUNT, Query(grown(semconv.OVERFLOWS))),
            alarm(
                "Dropped callbacks",
                "Events that a background subscriber was too slow for.",
                COUNT,
                Query(grown(semconv.DROPPED_CALLBACKS)),
            ),
        ],
    )


def collector() -> Row:
    size, capacity = (f"max by (instance, exporter) (otelcol_exporter_queue_{what})" for what in ("size", "capacity"))
    return Row(
        "Collector",
        [
            graph(
                "Accepted",
                "Points and spans a second that receivers took.",
                PER_SECOND,
                *_rates(_collector("receiver_accepted"), "receiver, transport", RECEIVER),
            ),
            graph(
                "Sent",
                "Points and spans a second that exporters delivered.",
                PER_SECOND,
                *_rates(_collector("exporter_sent"), "exporter", EXPORTER),
            ),
            graph(
                "Queues",
                "How full the exporters' queues are: a back end that is away fills them.",
                SHARE,
                Query(ratio(size, capacity), EXPORTER),
            ),
            graph(
                "Memory",
                "Resident memory of the collectors.",
                BYTES,
                Query("max by (instance) (otelcol_process_memory_rss_bytes)", "{{instance}}"),
            ),
        ],
    )


def agents() -> Row:
    spent, flushes = (f"sum(rate({select(each)}[5m]))" for each in (semconv.FLUSH_TIME, semconv.FLUSHES))
    return Row(
        "In the agents",
        [
            graph(
                "Silence",
                "Since the last word of each service's processes: the oldest of them.",
                SECONDS,
                Query(f"max by (job) (time() - timestamp({select(semconv.ACTIVE_CONVERSATIONS)}))", "{{job}}"),
                width=8,
            ),
            graph(
                "CPU time of a flush",
                "What an export costs an agent's process, beside its own threads.",
                SECONDS,
                Query(f"{spent} / ({flushes} > 0)", "a flush"),
                width=8,
            ),
            graph(
                "Differs from OpenHands' own total",
                "Our total of a conversation less OpenHands' own, the largest; docs/accounting.md has the reasons.",
                DOLLARS,
                Query(f"topk(5, max by ({ID}) (abs({select(semconv.CONVERSATION_UNRECONCILED)})))", f"{{{{{ID}}}}}"),
                width=8,
            ),
        ],
    )


def pipeline() -> Dashboard:
    description = "Whether what the other dashboards show is fresh and whole."
    return dashboard(
        "openhands-pipeline", "Pipeline health", description, [state(), collector(), agents()], since="now-1h"
    )
