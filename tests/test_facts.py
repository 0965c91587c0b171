"""A fact of a conversation is named once, in ``facts.py``: each leg of the way has its rows, and nothing else."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collector.held import HeldStore
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from telemetry.pipes import call, origin

from openhands_otel import events, semconv
from openhands_otel._internal.content import TitleAllowed
from openhands_otel._internal.facts import CONVERSATION_METRICS, FACTS, OUTCOMES, REASONS, STATES, Combine, Fact
from openhands_otel._internal.ledger.account import Account
from openhands_otel._internal.ledger.ledger import Ledger
from openhands_otel._internal.metrics.conversation_series import ConversationSeries
from openhands_otel._internal.viewer import facts_module
from openhands_otel.semconv import CostSource, Metric, Reason, RunOutcome, Status
from openhands_otel.stats import ConversationStats, TokenUsage
from otlp_sender import key_values

DOCUMENT = Path(__file__).parent.parent / "docs" / "metrics.md"
VIEWER = Path(__file__).parent.parent / "src" / "openhands_otel" / "_internal" / "viewer"

ELSEWHERE = {
    "conversation_id": "on every series",
    "name": "of the labels, of the title, or of the service and the start",
    "labels": "of the resources, and of the series with spend",
    "service": "of the resource",
    "processes": "of the resources",
    "model_name": "of the breakdowns",
    "provider_name": "of the breakdowns",
    "calls_by_model": "llm_calls and unpriced_calls, broken down",
    "costs": "accumulated_cost, broken down",
    "usage_to_metrics": "accumulated_cost and accumulated_token_usage, broken down",
    "tree_cost": "of the forest",
    "descendants": "of the forest",
    "closed": "of the series' ends",
    "stale": "of the process",
    "gone": "of the process",
    "ended": "of the process",
    "started_unix_nano": "of all series",
    "updated_unix_nano": "of all series",
    "received_unix_nano": "of all series",
}
"""Fields of ConversationStats that no series carries, and where they come from."""


def test_each_field_that_viewers_see_has_a_row_or_another_source() -> None:
    with_rows = {fact.field.partition(".")[0] for fact in FACTS if fact.field}
    assert with_rows | ELSEWHERE.keys() == ConversationStats.model_fields.keys()
    assert with_rows & ELSEWHERE.keys() == set()
    nested = {fact.field.partition(".")[2] for fact in FACTS if fact.field and "." in fact.field}
    assert nested <= TokenUsage.model_fields.keys()
    told = [fact.field for fact in FACTS if fact.field]
    assert len(told) == len(set(told)), "a field has two rows"


def test_each_metric_of_a_conversation_has_a_row() -> None:
    of_conversations = {
        each
        for each in vars(semconv).values()
        if isinstance(each, Metric) and each.name.startswith("openhands.conversation.")
    }
    assert of_conversations - {semconv.ACTIVE_CONVERSATIONS} == set(CONVERSATION_METRICS)


def test_rows_of_one_series_agree() -> None:
    for metric in CONVERSATION_METRICS:
        of_metric = [fact for fact in FACTS if fact.metric is metric]
        assert len({fact.lasting for fact in of_metric}) == 1
        assert (metric.kind == "counter") == (of_metric[0].combine is Combine.SUM)
        assert sum(fact.attribute is None for fact in of_metric) <= 1, "one value, two facts"
    for fact in FACTS:
        assert fact.account is None or hasattr(Account("c"), fact.account)


# ---------------------------------------------------------------- from the ledger to the viewer


def everything(conversation: str) -> Iterator[events.Event | TitleAllowed]:
    """A conversation of which there is something to say in each row."""
    agent = origin(conversation, agent="Agent", usage_id="agent", parent_id="p")
    yield events.ConversationOpened(time.time_ns(), conversation, "p", "Agent", "1.58.0", 0.5, 2.0)
    yield TitleAllowed(time.time_ns(), conversation, "a title")
    yield events.RunStarted(time.time_ns(), conversation, trace_id="0" * 31 + "1")
    yield from call(agent, 0.25)
    yield events.TokensUsed(time.time_ns(), agent, 10, 5, 4, 3, 2, 128_000, "r")
    yield events.ResponseRecorded(time.time_ns(), agent, False, 0.01)
    yield events.RunEnded(
        time.time_ns(), conversation, Status.STUCK, events.OwnTotal(9.0), RunOutcome.STUCK, "SomeError"
    )
    yield events.ToolStarted(time.time_ns(), conversation, "terminal", 1)


def told(ledger: Ledger, instance: str = "i") -> ExportMetricsServiceRequest:
    """The request that tells all that a ledger knows of its conversations."""
    scope = ConversationSeries(ledger).select(True, time.time_ns()).scope
    assert scope is not None
    resource = pb.ResourceMetrics(scope_metrics=[scope])
    resource.resource.attributes.extend(key_values({semconv.SERVICE_INSTANCE_ID: instance}))
    return ExportMetricsServiceRequest(resource_metrics=[resource])


def ledger_of(*each: events.Event | TitleAllowed) -> Ledger:
    ledger = Ledger(100, 100)
    for event in each:
        ledger.apply(event)
    return ledger


@pytest.fixture
def request_of_everything() -> ExportMetricsServiceRequest:
    return told(ledger_of(*everything("c")))


def test_the_sender_sends_each_row_and_nothing_else(request_of_everything: ExportMetricsServiceRequest) -> None:
    expected: dict[str, set[str]] = defaultdict(set)
    for fact in FACTS:
        expected[fact.metric.name] |= {*fact.by, *filter(None, [fact.attribute]), semconv.CONVERSATION_ID}
    sent: dict[str, set[str]] = defaultdict(set)
    for metric in request_of_everything.resource_metrics[0].scope_metrics[0].metrics:
        data = metric.sum if metric.HasField("sum") else metric.gauge
        for point in data.data_points:
            sent[metric.name] |= {attribute.key for attribute in point.attributes}
    assert sent == expected


def test_the_viewer_reads_each_row(request_of_everything: ExportMetricsServiceRequest) -> None:
    empty = ConversationStats(conversation_id="c").model_dump()
    with HeldStore() as held:
        assert held.take_body(request_of_everything.SerializeToString()) == 0
        stats = held.conversation("c").model_dump()
    for fact in FACTS:
        if fact.field is not None:
            name, _, inner = fact.field.partition(".")
            seen, nothing = (each[name][inner] if inner else each[name] for each in (stats, empty))
            assert seen != nothing, fact.field


def test_a_database_without_a_fact_opens_and_learns_it(tmp_path: Path) -> None:
    """As the version before wrote it: each row in turn is one that it did not know."""
    request = told(ledger_of(*everything("c")))
    for number, missing in enumerate(CONVERSATION_METRICS):
        before = ExportMetricsServiceRequest.FromString(request.SerializeToString())
        metrics = before.resource_metrics[0].scope_metrics[0].metrics
        kept = [metric for metric in metrics if metric.name != missing.name]
        del metrics[:]
        metrics.extend(kept)
        database = tmp_path / f"{number}.db"
        with HeldStore(database) as held:
            held.take_body(before.SerializeToString())
            after = held.conversation("c")
        with HeldStore(database) as held:
            assert held.conversation("c") == after
            held.take_body(request.SerializeToString())
            with HeldStore() as fresh:
                fresh.take_body(request.SerializeToString())
                assert comparable(held.conversation("c")) == comparable(fresh.conversation("c"))


def comparable(stats: ConversationStats) -> dict[str, Any]:
    return stats.model_dump(exclude={"received_unix_nano"})


def test_what_a_spool_tells_takes_the_place_of_nothing_newer() -> None:
    """In whatever order an older request of another process comes, told after the event."""
    newer = told(ledger_of(*everything("c")), "newer").SerializeToString()
    older = told(
        ledger_of(
            events.ConversationOpened(time.time_ns(), "c", "other", "Other", "1.0.0", 0.25, 1.0),
            events.RunStarted(time.time_ns(), "c"),
            events.RunEnded(time.time_ns(), "c", Status.ERROR, events.OwnTotal(1.0), RunOutcome.ERROR, "Other"),
            events.ToolStarted(time.time_ns(), "c", "browser", 1),
        ),
        "older",
    ).SerializeToString()
    with HeldStore() as held:
        held.take_body(newer)
        alone = held.conversation("c")
        held.take_body(older, replayed=True)
        both = held.conversation("c")
    for fact in FACTS:
        if fact.field and "." not in fact.field and fact.combine in LATEST:
            assert getattr(both, fact.field) == getattr(alone, fact.field), fact.field


LATEST = {Combine.NEWEST, Combine.CURRENT, Combine.SPEAKER, Combine.RESULT}


def test_the_rows_of_several_processes_sum_to_the_totals() -> None:
    with HeldStore() as held:
        for instance in ("one", "two"):
            held.take_body(told(ledger_of(*everything("c")), instance).SerializeToString())
        stats = held.conversation("c")
    assert stats.accumulated_cost == sum(part.accumulated_cost for part in stats.costs) == 0.5
    assert stats.llm_calls == sum(part.llm_calls for part in stats.calls_by_model) == 2
    assert stats.unpriced_calls == sum(part.unpriced_calls for part in stats.calls_by_model) == 2


def test_how_long_calls_took_is_added_up_and_the_slowest_kept_over_processes() -> None:
    calls = {"one": (0.5, 4.0, float("nan")), "two": (1.25,)}
    with HeldStore() as held:
        for instance, seconds in calls.items():
            now = time.time_ns()
            took = [events.LatencyRecorded(now, origin("c"), each, "r") for each in seconds]
            ledger = ledger_of(*took)
            known = ledger.snapshot("c")
            assert known is not None
            assert known.longest_call_seconds == seconds[len(seconds) > 1]
            held.take_body(told(ledger, instance).SerializeToString())
        stats = held.conversation("c")
    assert (stats.llm_calls, stats.llm_seconds, stats.longest_call_seconds) == (4, 5.75, 4.0)


def test_the_first_and_the_last_call_are_those_of_all_processes() -> None:
    began = {"one": (1_700_000_100, 1_700_000_300), "two": (1_700_000_000, 1_700_000_200)}
    with HeldStore() as held:
        for instance, times in began.items():
            started = [events.LLMCallStarted(at * 10**9, origin("c"), at) for at in times]
            ledger = ledger_of(*started)
            known = ledger.snapshot("c")
            assert known is not None
            assert (known.first_call_unix_s, known.last_call_unix_s) == times
            held.take_body(told(ledger, instance).SerializeToString(), replayed=instance == "two")
        stats = held.conversation("c")
    assert (stats.first_call_unix_s, stats.last_call_unix_s) == (1_700_000_000, 1_700_000_300)


def test_a_title_is_the_newest_and_stays_when_its_conversation_has_ended() -> None:
    """And comes behind the label that names a conversation; nothing is told twice, and nothing of a stranger."""
    named = origin("named", labels=(("name", "mine"),))
    ledger = ledger_of(
        *(
            events.ConversationOpened(time.time_ns(), each, None, "Agent", "1.58.0", 0.0, None)
            for each in ("c", "named")
        ),
        *call(named, 0.25),
        *(TitleAllowed(time.time_ns(), each, "first") for each in ("c", "named", "stranger")),
    )
    series = ConversationSeries(ledger)
    with HeldStore() as held:

        def tell() -> None:
            selected = series.select(False, time.time_ns())
            assert selected.scope is not None
            resource = pb.ResourceMetrics(scope_metrics=[selected.scope])
            resource.resource.attributes.extend(key_values({semconv.SERVICE_INSTANCE_ID: "i"}))
            held.take_body(ExportMetricsServiceRequest(resource_metrics=[resource]).SerializeToString())
            selected.commit()

        tell()
        assert (held.conversation("c").title, held.conversation("c").name) == ("first", "first")
        assert (held.conversation("named").title, held.conversation("named").name) == ("first", "mine")
        assert "stranger" not in ledger.accounts
        ledger.apply(TitleAllowed(time.time_ns(), "c", ""))
        tell()
        assert not held.conversation("c").title, "it was taken away"
        assert held.conversation("c").name != "first"
        ledger.apply(TitleAllowed(time.time_ns(), "c", "second"))
        tell()
        assert held.conversation("c").name == "second"
        ledger.apply(events.ConversationClosed(time.time_ns(), "c"))
        tell()
        tell()
        assert held.conversation("c").closed
        ledger.apply(TitleAllowed(time.time_ns(), "c", "second"))
        assert not series.has_more, "it is told at each save"
        ledger.apply(TitleAllowed(time.time_ns(), "c", "third"))
        tell()
        tell()
        assert (held.conversation("c").title, held.conversation("c").closed) == ("third", True)


BEFORE = {
    semconv.CONVERSATION_COST.name: {semconv.LLM_ROLE, semconv.REQUEST_MODEL, semconv.USAGE_ID},
    semconv.CONVERSATION_TOKENS.name: {semconv.TOKEN_TYPE, semconv.USAGE_ID},
    semconv.CONVERSATION_CALLS.name: {semconv.REQUEST_MODEL, semconv.PROVIDER_NAME},
    semconv.CONVERSATION_UNPRICED.name: {semconv.REQUEST_MODEL, semconv.PROVIDER_NAME},
    semconv.CONVERSATION_LLM_TIME.name: set[str](),
}
"""What release 0.1 broke them down by."""


def as_before(request: ExportMetricsServiceRequest) -> ExportMetricsServiceRequest:
    """What an agent of release 0.1 says, where nothing is to be added up for it."""
    older = ExportMetricsServiceRequest.FromString(request.SerializeToString())
    for metric in older.resource_metrics[0].scope_metrics[0].metrics:
        for point in metric.sum.data_points if metric.name in BEFORE else ():
            kept = [each for each in point.attributes if each.key in {semconv.CONVERSATION_ID, *BEFORE[metric.name]}]
            del point.attributes[:]
            point.attributes.extend(kept)
    return older


def test_an_agent_of_the_release_before_says_the_same(request_of_everything: ExportMetricsServiceRequest) -> None:
    with HeldStore() as newer, HeldStore() as older:
        newer.take_body(request_of_everything.SerializeToString())
        older.take_body(as_before(request_of_everything).SerializeToString())
        assert comparable(older.conversation("c")) == comparable(newer.conversation("c"))


def test_an_agent_of_the_release_before_and_one_of_today_add_up() -> None:
    ledgers = {name: ledger_of(*everything("c")) for name in ("older", "newer")}
    with HeldStore() as held:
        held.take_body(as_before(told(ledgers["older"], "older")).SerializeToString())
        held.take_body(told(ledgers["newer"], "newer").SerializeToString())
        stats = held.conversation("c")
    assert (stats.accumulated_cost, stats.llm_calls, stats.unpriced_calls, stats.llm_seconds) == (0.5, 2, 2, 0.2)
    assert [part.accumulated_cost for part in stats.costs] == [0.5]
    assert [(part.llm_calls, part.unpriced_calls) for part in stats.calls_by_model] == [(2, 2)]
    assert stats.usage_to_metrics["agent"].accumulated_token_usage.prompt_tokens == 220


def test_however_much_its_spend_is_broken_down_viewers_see_what_the_process_knows() -> None:
    """Uses that differ in what viewers do not tell apart become one part of theirs."""
    ledger = Ledger(1_000, 100)
    uses = itertools.product(("gpt-4o", "mini"), ("openai", "azure"), ("agent", "title"), ((), (("team", "x"),)))
    for number, (model, provider, usage_id, labels) in enumerate(uses):
        whose = origin("c", model, provider=provider, usage_id=usage_id, labels=labels)
        for source in (CostSource.PROVIDER, CostSource.ESTIMATED):
            ledger.apply(events.CostAdded(time.time_ns(), whose, 2.0**number, source, 2.0**number))
        for event in call(whose, 0.25):
            ledger.apply(event)
    known = ledger.snapshot("c")
    assert known is not None
    with HeldStore() as held:
        held.take_body(told(ledger).SerializeToString())
        seen = held.conversation("c")
    assert len(ledger.accounts["c"].parts) == 16
    assert (len(seen.costs), len(seen.calls_by_model)) == (4, 4)
    for name in ("accumulated_cost", "costs", "usage_to_metrics", "accumulated_token_usage", "llm_seconds", "labels"):
        assert getattr(seen, name) == getattr(known, name), name
    assert set(seen.calls_by_model) == set(known.calls_by_model)


# ---------------------------------------------------------------- words and documents


def test_each_value_has_words() -> None:
    assert OUTCOMES.keys() == set(RunOutcome)
    assert REASONS.keys() == set(Reason)
    plain = {Status.IDLE, Status.FINISHED, Status.DELETING, Status.CLOSED}
    assert STATES.keys() == {*Status, "silent", "gone", "ended"} - plain


def test_the_page_has_the_words_from_the_table_and_no_others() -> None:
    exported = dict(re.findall(r"^export const (\w+) = (.*);$", facts_module(), re.MULTILINE))
    assert json.loads(exported["OUTCOMES"]) == {name: word.text for name, word in OUTCOMES.items()}
    assert [row["field"] for row in json.loads(exported["REMARKS"])] == [fact.field for fact in FACTS if fact.remark]
    scripts = {path.name: path.read_text() for path in VIEWER.glob("*.js")}
    imported = {
        name
        for text in scripts.values()
        for names in re.findall(r"import \{([^}]+)\} from \"./facts.js\"", text)
        for name in re.findall(r"\w+", names)
    }
    assert imported == exported.keys()
    for text in scripts.values():
        assert not re.findall(r"over budget|out of turns|under two names", text)


def test_the_documented_facts_are_the_rows() -> None:
    section = DOCUMENT.read_text().partition("## Facts of a conversation\n")[2].partition("\n## ")[0]
    found = [line for line in section.splitlines() if line.startswith("|")][2:]
    assert found == [row(fact) for fact in FACTS if fact.field]


def row(fact: Fact) -> str:
    carrier = f"`{fact.metric.name}`" + (f", attribute `{fact.attribute}`" if fact.attribute else "")
    return f"| `{fact.field}` | {carrier} | {fact.combine.value} |"
