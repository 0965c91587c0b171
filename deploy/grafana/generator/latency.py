"""Latency and tools: how long calls and tools take, what fails and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.generator.frame import Row, dashboard
from deploy.grafana.generator.panels import COUNT, PER_SECOND, SECONDS, SHARE, Query, alarm, bars, graph, number
from deploy.grafana.generator.queries import (
    RATE,
    WHERE,
    either,
    generations,
    grown,
    label,
    quantile,
    quantile_of,
    ratio,
    select,
)
from openhands_otel import semconv
from openhands_otel.semconv import Metric, TokenType

MODEL: Final = label(semconv.REQUEST_MODEL)
TOOL: Final = label(semconv.TOOL_NAME)
OUTCOME: Final = label(semconv.TOOL_OUTCOME)
ERROR: Final = label(semconv.ERROR_TYPE)
FAILED: Final = f'{ERROR}!=""'
SHARES: Final = (0.5, 0.95, 0.99)


def _percentiles(metric: Metric) -> list[Query]:
    return [Query(quantile(share, metric), f"p{share * 100:.0f}") for share in SHARES]


def _over_time(share: float, metric: Metric, by: Sequence[str], legend: str) -> Query:
    level = ", ".join(("le", *by))
    rates = either(lambda each: f"rate({each}[{RATE}])", generations(metric, part="_bucket"))
    rate = f"sum by ({level}) ({rates})"
    return Query(f"histogram_quantile({share:g}, {rate})", legend)


def _tokens_of_a_call(kind: TokenType, newest: Metric) -> list[Query]:
    of_kind = select(semconv.TOKEN_USAGE, f'{label(semconv.TOKEN_TYPE)}="{kind}"', part="_bucket")
    series = (select(newest, part="_bucket"), of_kind)
    return [Query(quantile_of(share, series), f"{kind} p{share * 100:.0f}") for share in SHARES[:2]]


def totals() -> Row:
    made = grown(semconv.OPERATION_DURATION, part="_count")
    failed = grown(semconv.OPERATION_DURATION, FAILED, part="_count")
    tools = grown(semconv.TOOL_DURATION, part="_count")
    bad = grown(semconv.TOOL_DURATION, f'{OUTCOME}!="{semconv.ToolOutcome.OK}"', part="_count")
    return Row(
        "In the range shown",
        [
            number(
                "Call duration",
                "Percentiles of LLM calls, their retries included.",
                SECONDS,
                *_percentiles(semconv.OPERATION_DURATION),
                width=6,
            ),
            number(
                "First chunk",
                "Percentiles of the time until a streamed answer begins.",
                SECONDS,
                *_percentiles(semconv.TIME_TO_FIRST_CHUNK),
                width=6,
            ),
            alarm("Failed calls", "LLM calls that failed, by all that ended.", SHARE, Query(ratio(failed, made))),
            number("Retries", "Attempts after the first of an LLM call.", COUNT, Query(grown(semconv.RETRIES))),
            number("Tool calls", "Tool calls that ended.", COUNT, Query(tools)),
            number("Tools not ok", "Tool calls that did not end well, by all.", SHARE, Query(ratio(bad, tools))),
        ],
    )


def calls() -> Row:
    return Row(
        "LLM calls",
        [
            graph(
                "Call duration by model",
                "95th percentile of LLM calls. Points lead to traces.",
                SECONDS,
                _over_time(0.95, semconv.OPERATION_DURATION, [MODEL], f"{{{{{MODEL}}}}}"),
                exemplars=True,
            ),
            graph(
                "First chunk by model",
                "95th percentile of the time until a streamed answer begins. Points lead to traces.",
                SECONDS,
                _over_time(0.95, semconv.TIME_TO_FIRST_CHUNK, [MODEL], f"{{{{{MODEL}}}}}"),
                exemplars=True,
            ),
            graph(
                "Latency that OpenHands records",
                "Percentiles of its own figure, which some callers leave out.",
                SECONDS,
                *(_over_time(share, semconv.RESPONSE_LATENCY, [], f"p{share * 100:.0f}") for share in SHARES),
                width=8,
            ),
            graph(
                "Share of calls that failed",
                "At each moment, of the calls of the 15 minutes before it, by model.",
                SHARE,
                Query(
                    f"sum by ({MODEL}) (openhands:llm_calls:failed15m{{{WHERE}}})"
                    f" / sum by ({MODEL}) (openhands:llm_calls:made15m{{{WHERE}}})",
                    f"{{{{{MODEL}}}}}",
                ),
                width=8,
            ),
            graph(
                "Retries by model",
                "Attempts after the first a second, by model.",
                PER_SECOND,
                Query(f"sum by ({MODEL}) (rate({select(semconv.RETRIES)}[{RATE}]))", f"{{{{{MODEL}}}}}"),
                width=8,
            ),
        ],
    )


def errors() -> Row:
    return Row(
        "Errors",
        [
            bars(
                "Failed calls by error",
                "LLM calls that failed, by class of the exception and model.",
                COUNT,
                Query(
                    grown(semconv.OPERATION_DURATION, FAILED, by=[ERROR, MODEL], part="_count"),
                    f"{{{{{ERROR}}}}} {{{{{MODEL}}}}}",
                ),
                width=12,
            ),
            bars(
                "Tool errors by tool",
                "Tool calls that raised an exception, by its class.",
                COUNT,
                Query(
                    grown(semconv.TOOL_DURATION, FAILED, by=[TOOL, ERROR], part="_count"),
                    f"{{{{{TOOL}}}}} {{{{{ERROR}}}}}",
                ),
                width=12,
            ),
        ],
    )


def tools() -> Row:
    return Row(
        "Tools",
        [
            graph(
                "Tool duration",
                "95th percentile by tool. Points lead to traces.",
                SECONDS,
                _over_time(0.95, semconv.TOOL_DURATION, [TOOL], f"{{{{{TOOL}}}}}"),
                exemplars=True,
            ),
            bars(
                "Tool calls by tool",
                "Calls in the range, by tool.",
                COUNT,
                Query(f"sort_desc({grown(semconv.TOOL_DURATION, by=[TOOL], part='_count')})", f"{{{{{TOOL}}}}}"),
            ),
            bars(
                "How tool calls ended",
                "ok; tool_error: it ran and said that it failed; exception; rejected by the user or a hook; cancelled.",
                COUNT,
                Query(grown(semconv.TOOL_DURATION, by=[OUTCOME], part="_count"), f"{{{{{OUTCOME}}}}}"),
            ),
            graph(
                "Context window",
                "95th percentile of how full turns leave the model's context window, by model.",
                SHARE,
                _over_time(0.95, semconv.CONTEXT_UTILIZATION, [MODEL], f"{{{{{MODEL}}}}}"),
            ),
            bars(
                "Calls of a run",
                "Percentiles of LLM responses and tool calls of one run.",
                COUNT,
                *(Query(quantile(share, semconv.RUN_CALLS), f"LLM p{share * 100:.0f}") for share in SHARES[:2]),
                *(Query(quantile(share, semconv.RUN_TOOL_CALLS), f"tools p{share * 100:.0f}") for share in SHARES[:2]),
            ),
            bars(
                "Tokens of a call",
                "Percentiles of input and output tokens of one LLM call.",
                COUNT,
                *_tokens_of_a_call(TokenType.INPUT, semconv.OPERATION_INPUT_TOKENS),
                *_tokens_of_a_call(TokenType.OUTPUT, semconv.OPERATION_OUTPUT_TOKENS),
            ),
        ],
    )


def latency() -> Dashboard:
    description = "How long LLM calls and tools take, and what fails."
    return dashboard("openhands-latency", "Latency and tools", description, [totals(), calls(), errors(), tools()])
