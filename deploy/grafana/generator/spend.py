"""Spend: what was spent, exactly, in any range; today against the budget; where it goes; what it is worth."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana.generator.frame import Row, dashboard
from deploy.grafana.generator.panels import (
    COUNT,
    DOLLARS,
    SHARE,
    TOKENS,
    WIDTH,
    Column,
    Query,
    alarm,
    bars,
    graph,
    number,
    rows,
)
from deploy.grafana.generator.queries import OF_SERVICE, RANGE, RATE, VARIABLES, WHERE, grown, label, ratio, select
from openhands_otel import semconv

MODEL: Final = label(semconv.REQUEST_MODEL)
ROLE: Final = label(semconv.LLM_ROLE)
AGENT: Final = label(semconv.AGENT_NAME)
TEAM, PROJECT = VARIABLES["team"], VARIABLES["project"]
OUTCOME: Final = label(semconv.RUN_OUTCOME)
SCOPE: Final = label(semconv.BUDGET_SCOPE)
FINISHED: Final = f'{OUTCOME}="{semconv.RunOutcome.FINISHED}"'

SPENT: Final = grown(semconv.COST)
DAY_S: Final = 86400
BUDGET_STEPS: Final = ((None, "green"), (0.5, "yellow"), (0.8, "orange"), (0.95, "red"))


def totals() -> Row:
    runs, finished = grown(semconv.RUN_COST, part="_count"), grown(semconv.RUN_COST, FINISHED, part="_count")
    run_cost = grown(semconv.RUN_COST, part="_sum")
    cached = ratio(grown(semconv.CACHE_READ_TOKENS), grown(semconv.INPUT_TOKENS))
    return Row(
        "In the range shown",
        [
            number("Spent", "What LLM calls cost: exact, for any range.", DOLLARS, Query(SPENT), decimals=4),
            number("LLM calls", "Calls that were answered.", COUNT, Query(grown(semconv.CALLS))),
            number("Cost per run", "What runs cost on average.", DOLLARS, Query(ratio(run_cost, runs)), decimals=4),
            number(
                "Cost per finished run",
                "What all runs cost, the failed and the stuck ones too, by those that finished.",
                DOLLARS,
                Query(ratio(run_cost, finished)),
                decimals=4,
            ),
            number("From the cache", "Input tokens that were read from a cache.", SHARE, Query(cached), decimals=1),
            number(
                "The cache saved",
                "Cached input at its full price less what it cost. Models without a known price add nothing.",
                DOLLARS,
                Query(grown(semconv.CACHE_SAVINGS)),
                decimals=4,
            ),
            alarm(
                "Unpriced calls",
                "Calls with tokens for which no price was known: what was spent is more than shown.",
                COUNT,
                Query(grown(semconv.UNPRICED_CALLS)),
            ),
            number(
                "Exports failed",
                "Exports that agents had to repeat; what they held is in the next one.",
                COUNT,
                Query(grown(semconv.FAILED_EXPORTS)),
            ),
        ],
    )


def budget() -> Row:
    limit = f'sum(openhands:budget_limit_USD:current{{{OF_SERVICE}, {SCOPE}="{semconv.BudgetScope.DAY}"}})'
    return Row(
        "Budget",
        [
            number(
                "Today",
                "Since midnight in your time zone, what it comes to by the next midnight if it goes on like that, and "
                "the services' budgets of a day (OPENHANDS_OTEL_BUDGETS).",
                DOLLARS,
                Query(SPENT, "spent"),
                Query(f"({SPENT}) / $__range_s * {DAY_S}", "projected"),
                Query(limit, "budget"),
                width=12,
                since="now/d",
                decimals=2,
            ).height(8),
            bars(
                "Budgets used",
                "A day: a service's last 24 hours. An experiment: a service's last 30 days. A team: the last 30 days "
                "of all services of a namespace.",
                SHARE,
                Query(
                    f"openhands:budget_used:ratio{{{OF_SERVICE}}} or openhands:budget_used:ratio{{{SCOPE}="
                    f'"{semconv.BudgetScope.TEAM}"}}',
                    f"{{{{{SCOPE}}}}}: {{{{job}}}}{{{{team}}}}",
                ),
                width=12,
                steps=BUDGET_STEPS,
            ).max(1),
        ],
    )


def burn() -> Row:
    return Row(
        "Burn",
        [
            graph(
                "Burn per hour",
                "How fast money goes, dollars an hour by model. A rate, not a total. Points lead to traces.",
                DOLLARS,
                Query(f"3600 * sum by ({MODEL}) (rate({select(semconv.COST)}[{RATE}]))", f"{{{{{MODEL}}}}}"),
                stacked=True,
                exemplars=True,
            ),
            graph(
                "Spent within the last hour",
                "At each moment, what the hour before it cost: exact, by service.",
                DOLLARS,
                Query(f"sum by (job) (openhands:llm_cost_USD:spent1h{{{WHERE}}})", "{{job}}"),
                stacked=True,
            ),
        ],
    )


def shares() -> Row:
    panels = [
        bars(f"By {what}", description, DOLLARS, Query(f"sort_desc({grown(semconv.COST, by=[by])})", f"{{{{{by}}}}}"))
        for what, by, description in (
            ("model", MODEL, "What each model cost in the range."),
            ("role", ROLE, "What calls of the agent, of sub-agents, of the condenser and so on cost in the range."),
            ("agent", AGENT, "What each kind of agent cost in the range."),
            ("service", "job", "What each service cost in the range."),
        )
    ]
    chargeback = bars(
        "By team and project",
        "What each team and project cost in the range: labels of OPENHANDS_OTEL_LABELS, and those that "
        "OPENHANDS_OTEL_FLEET_LABELS allows on counters. Without a name: what has none.",
        DOLLARS,
        Query(f"sort_desc({grown(semconv.COST, by=[TEAM, PROJECT])})", f"{{{{{TEAM}}}}} / {{{{{PROJECT}}}}}"),
        width=WIDTH,
    )
    return Row("Where it goes", [*panels, chargeback, _bill()])


def _bill() -> table.Panel:
    whose = list(VARIABLES.values())
    month = f"sum by ({', '.join(whose)}) (openhands:llm_cost_USD:spent30d{{{WHERE}}})"
    return rows(
        "Chargeback",
        "Whose spend it is, a row for each set of labels: in the range, and in the last 30 days. Rows add up to what "
        "was spent; without a name stands what has none.",
        [
            *(Column(name.capitalize(), label=selected) for name, selected in VARIABLES.items()),
            Column("Cost", grown(semconv.COST, by=whose), DOLLARS),
            Column("30 days", month, DOLLARS),
            Column("Calls", grown(semconv.CALLS, by=whose)),
            Column("Tokens in", grown(semconv.INPUT_TOKENS, by=whose), TOKENS),
            Column("Tokens out", grown(semconv.OUTPUT_TOKENS, by=whose), TOKENS),
        ],
        sort="Cost",
        height=8,
    )


def tokens() -> Row:
    kinds = [Query(grown(counter), kind.value.replace("_", " ")) for kind, counter in semconv.TOKEN_COUNTERS.items()]
    return Row(
        "Tokens",
        [
            bars(
                "Tokens by kind",
                "Cache reads and writes are part of input, reasoning is part of output: don't add them up.",
                TOKENS,
                *kinds,
                width=12,
            ),
            graph(
                "Tokens per minute",
                "Input without what was read from a cache, and output.",
                TOKENS,
                Query(
                    f"60 * (sum(rate({select(semconv.INPUT_TOKENS)}[{RATE}]))"
                    f" - (sum(rate({select(semconv.CACHE_READ_TOKENS)}[{RATE}])) or vector(0)))",
                    "input, not cached",
                ),
                Query(f"60 * sum(rate({select(semconv.OUTPUT_TOKENS)}[{RATE}]))", "output"),
            ),
        ],
    )


def spend() -> Dashboard:
    description = f"What agents spend. Totals are exact over [{RANGE}]; docs/metrics.md says how."
    return dashboard("openhands-spend", "Spend", description, [totals(), budget(), burn(), shares(), tokens()])
