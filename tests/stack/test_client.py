"""``StatsClient`` says of a real Prometheus what it says of a viewer that was told the same, and both say the bill."""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import certificates
import pytest
from viewer_process import running_viewer

from deploy.native.build import binary
from deploy.native.ports import free_ports
from deploy.native.server import Server
from deploy.native.stack import Stack
from forked import Prepared
from openhands_otel._internal.demo.answers import Answer, Usage
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel.client import PROMETHEUS, AsyncStatsClient, StatsClient, StatsError, Unreachable
from openhands_otel.stats import Breakdown, ConversationStats, SnapshotUpdate, Spend, State

from . import sending
from .prometheus_api import wait
from .working import HEARTBEAT_S, HERE, agent_at_work

PROMETHEUS_KNOWS_NOT = {"received_unix_nano", "updated_unix_nano", "gone"}
"""Of a conversation: when a viewer heard of it, when a series ended, and whether a connection broke."""
CONVERSATIONS = 6
"""Of the agent at work."""
ENDS = {"left": signal.SIGTERM, "killed": signal.SIGKILL}
BRIEF = HERE / "programs" / "brief_agents.py"

CLOSED, LEFT, KILLED = (str(uuid.UUID(int=number)) for number in (7, 8, 9))
"""Conversations of processes that are no more: closed by the last of three, left open, and killed."""
GROUPINGS: tuple[tuple[str, ...], ...] = (
    (),
    ("model",),
    ("service", "role"),
    ("namespace", "service", "model"),
    ("day", "provider", "agent"),
    ("team", "project"),
    ("team", "hour", "namespace", "model"),
    ("environment", "week", "month"),
)
TWO_EXPORTERS = """
exporters:
  otlp_http/viewer:
    endpoint: {viewer}
service:
  pipelines:
    metrics:
      exporters: [otlp_http/prometheus, otlp_http/viewer]
"""


class Told(NamedTuple):
    """Both of them, who were told the same by one collector, and the provider that asks for the money."""

    viewer: StatsClient
    prometheus: StatsClient
    provider: LLMServer
    url: str


@pytest.fixture(scope="module")
def told(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("told")
    with running_viewer() as viewer, LLMServer() as server:
        overlay = folder / "viewer.yaml"
        overlay.write_text(TWO_EXPORTERS.format(viewer=viewer.url))
        with Stack(folder / "stack", overlays=[overlay]) as stack:
            url = f"{PROMETHEUS}{stack.prometheus_url}"
            with StatsClient(viewer.url) as of_viewer, StatsClient(url) as of_prometheus:
                labels = {"OPENHANDS_OTEL_LABELS": "team=payments,project=checkout"}

                def waits() -> bool:
                    working = [each for each in of_viewer.conversations() if each.service == "worker"]
                    return len(working) == CONVERSATIONS and any(each.activity == "llm" for each in working)

                with ThreadPoolExecutor() as beside:
                    brief = beside.submit(brief_agents, prepared, stack, server, folder)
                    with agent_at_work(stack, server, folder, waits, **labels):
                        brief.result()
                        yield Told(of_viewer, of_prometheus, server, url)


def brief_agents(prepared: Prepared, stack: Stack, server: LLMServer, folder: Path) -> None:
    """Processes of seconds, one after the other, under labels of their own; see ``programs/brief_agents.py``."""
    server.script("brief", lambda request: Answer(text="Done.", usage=Usage(input=900, output=30, cached=100)))
    given = {
        "OTEL_SERVICE_NAME": "brief",
        "OPENHANDS_OTEL_HEARTBEAT_S": f"{HEARTBEAT_S}",
        "URL": server.base_url("brief"),
        "FOLDER": str(folder),
    }
    for which in ("left", "killed", "open", "again", "closed"):
        child = sending.start(prepared, stack, BRIEF.read_text(), folder / which, **given, WHICH=which)
        assert child.wait(100) == -ENDS.get(which, 0), child.err


def comparable(stats: ConversationStats) -> dict[str, Any]:
    """A conversation's fields as both have to have them; Prometheus counts in milliseconds."""
    found = stats.model_dump(exclude=PROMETHEUS_KNOWS_NOT)
    found["started_unix_nano"] //= 1_000_000
    return found


def same(one: object, other: object) -> bool:
    """Equal, money to 1e-9."""
    if isinstance(one, float) and isinstance(other, float | int):
        return one == pytest.approx(other, abs=1e-9)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def differences(told: Told) -> dict[str, list[tuple[str, object, object]]]:
    """Fields of conversations in which the two differ."""
    ours, theirs = ({each.conversation_id: comparable(each) for each in client.conversations()} for client in told[:2])
    assert ours.keys() == theirs.keys()
    found = {
        name: [
            (field, ours[name][field], theirs[name][field])
            for field in ours[name]
            if not same(ours[name][field], theirs[name][field])
        ]
        for name in ours
    }
    return {name: fields for name, fields in found.items() if fields}


def shares(breakdown: Breakdown) -> dict[str, Any]:
    """Who has what part of the totals; of what nobody spent a viewer has rows too."""
    lists = breakdown.model_dump(exclude={"totals"})
    return {name: [each for each in found if each["llm_calls"]] for name, found in lists.items()}


@pytest.mark.timeout(300)
def test_both_say_the_same_of_every_conversation_field_by_field(told: Told) -> None:
    assert wait(lambda: differences(told), lambda found: not found) == {}
    known = told.viewer.conversations()
    brief = {each.conversation_id: (each.closed, each.ended, each.stale) for each in known if each.service == "brief"}
    assert brief == {CLOSED: (True, False, False), LEFT: (False, True, False), KILLED: (False, False, True)}
    for stats in known:
        of_prometheus = told.prometheus.conversation(stats.conversation_id)
        assert same(comparable(stats), comparable(of_prometheus))
    assert {each.outcome for each in known} == {"finished", "error", None}
    for outcome in ("error", "finished"):
        ids = [{each.conversation_id for each in client.conversations(outcome)} for client in told[:2]]
        assert ids[0] == ids[1]
        assert ids[0]


@pytest.mark.timeout(300)
def test_both_say_the_bill_in_total_and_by_anything(told: Told) -> None:
    bill = sum(entry.cost or 0.0 for entry in told.provider.bill.entries)
    assert bill > 0

    def of_both[T](ask: Callable[[StatsClient], T]) -> tuple[T, T]:
        return ask(told.viewer), ask(told.prometheus)

    def totals(client: StatsClient) -> Any:
        return client.totals().totals.model_dump(exclude={"received_unix_nano", "burn"})

    _, found = wait(lambda: of_both(totals), lambda found: same(*found))
    assert same(totals(told.viewer), found)
    assert found["accumulated_cost"] == pytest.approx(bill, abs=1e-9)
    assert same(*of_both(lambda client: shares(client.totals())))
    assert told.prometheus.totals().totals.burn.per_hour == pytest.approx(12 * bill, rel=1e-9)

    for by in GROUPINGS:
        ours, theirs = of_both(lambda client, by=by: client.spend(by, timezone="Asia/Kolkata"))
        assert theirs.total.accumulated_cost == pytest.approx(bill, abs=1e-9)
        if by:
            assert sum(group.accumulated_cost for group in theirs.groups) == pytest.approx(bill, abs=1e-9)
        assert same(*(found.model_dump(exclude={"remarks"}) for found in (ours, theirs))), by
    begin = time.time() - 3600
    for where in (["team=payments"], ["namespace!=crew"], ["model=gpt-4o*", "role=agent", "role=subagent"]):
        ours, theirs = of_both(lambda client, where=where: client.spend(["service"], since=begin, where=where, top=1))
        assert 0 < theirs.total.accumulated_cost <= bill
        assert same(*(found.model_dump(exclude={"timezone"}) for found in (ours, theirs))), where
    # Before any of it.
    assert told.prometheus.spend(until=begin).total.accumulated_cost == 0


@pytest.mark.timeout(300)
def test_history_and_presence_hold_what_the_series_say(told: Told) -> None:
    bill = sum(entry.cost or 0.0 for entry in told.provider.bill.entries)
    history = told.prometheus.history(bucket_s=1)
    assert history.before is None
    costs = [point.accumulated_cost for point in history.points]
    assert costs == sorted(costs)
    assert costs[-1] == pytest.approx(bill, abs=1e-9)
    stats = max(told.viewer.conversations(), key=lambda each: each.accumulated_cost)
    last = told.prometheus.history(stats.conversation_id, bucket_s=10).points[-1]
    assert (last.llm_calls, last.prompt_tokens, last.completion_tokens) == (
        stats.llm_calls,
        stats.accumulated_token_usage.prompt_tokens,
        stats.accumulated_token_usage.completion_tokens,
    )
    assert last.accumulated_cost == pytest.approx(stats.accumulated_cost, abs=1e-9)
    later = told.prometheus.history(since=time.time(), until=time.time() + 10, bucket_s=1)
    assert later.before is not None
    assert later.before.accumulated_cost == pytest.approx(bill, abs=1e-9)

    # It knows conversations by their calls, so within the time in which their processes held them.
    held = told.viewer.presence()
    present = told.prometheus.presence()
    assert {each.conversation_id for each in present} == {each.conversation_id for each in held}
    for each in present:
        assert any(
            one.conversation_id == each.conversation_id and one.since <= each.since + 1 and each.until <= one.until + 1
            for one in held
        )


@pytest.mark.timeout(300)
def test_an_event_loop_and_a_stream_are_told_the_same(told: Told) -> None:
    async def ask() -> tuple[State, Spend]:
        async with AsyncStatsClient(told.url) as client:
            spend = await client.spend(["model"], timezone="UTC")
            async for update in client.stream():
                assert isinstance(update, SnapshotUpdate)
                return update.state, spend
        raise AssertionError

    state, spend = asyncio.run(ask())
    with StatsClient(told.url) as client:
        first = next(client.stream())
        assert isinstance(first, SnapshotUpdate)
        for found in (state, first.state, client.state()):
            assert [comparable(each) for each in found.conversations] == [
                comparable(each) for each in told.prometheus.conversations()
            ]
            assert found.totals.accumulated_cost == told.prometheus.totals().totals.accumulated_cost
        assert client.spend(["model"], timezone="UTC").groups == spend.groups


@pytest.mark.timeout(300)
def test_what_it_cannot_answer_is_an_error_that_says_what_to_do(told: Told) -> None:
    for by in ("conversation", "run", "usage_id", "cost_source"):
        with pytest.raises(StatsError, match=rf"'{by}' .*ask a viewer"):
            told.prometheus.spend([by])
    with pytest.raises(StatsError, match="nobody"):
        told.prometheus.conversation('nobody"} or vector(1) # \\ \n|.*')
    with pytest.raises(StatsError, match="there is no outcome"):
        told.prometheus.conversations("failed")
    with pytest.raises(StatsError, match="no condition"):
        told.prometheus.spend(where=["model"])
    for ask in (told.prometheus.calls, told.prometheus.timeline):
        with pytest.raises(StatsError, match=r"no spans.*ask a viewer"):
            ask(CLOSED)
    with pytest.raises(StatsError, match="budgets: ask a viewer"):
        told.prometheus.budgets()
    with pytest.raises(StatsError, match="since must be before until"):
        told.prometheus.history(since=2, until=1)


BEHIND = """
{
	admin off
	persist_config off
	auto_https off
}
http://:%(ready)s {
	bind 127.0.0.1
	respond 200
}
https://127.0.0.1:%(port)s {
	bind 127.0.0.1
	tls %(certificate)s %(key)s
	@stranger not header Authorization "Bearer s3cret"
	route {
		respond @stranger 401
		handle_path /mimir/prometheus/* {
			reverse_proxy %(prometheus)s
		}
	}
}
"""


@pytest.mark.timeout(300)
def test_behind_a_token_an_authority_of_ones_own_and_a_path(told: Told, tmp_path: Path) -> None:
    ours = certificates.make(tmp_path / "ours")
    port, ready = free_ports(2)
    upstream = told.url.removeprefix(f"{PROMETHEUS}http://")
    named = {"port": port, "ready": ready, "certificate": ours.certificate, "key": ours.key, "prometheus": upstream}
    config = tmp_path / "Caddyfile"
    config.write_text(BEHIND % named)
    arguments = [str(binary("caddy")), "run", "--adapter=caddyfile", f"--config={config}"]
    server = Server("caddy", arguments, f"http://127.0.0.1:{ready}", tmp_path / "log", {"XDG_DATA_HOME": str(tmp_path)})
    server.start()
    server.wait_ready()
    url = f"{PROMETHEUS}https://127.0.0.1:{port}/mimir/prometheus/"
    try:
        with StatsClient(url, "s3cret", certificate=ours.authority) as client:
            assert client.totals().totals.accumulated_cost == told.prometheus.totals().totals.accumulated_cost > 0
            assert client.spend(["service"], timezone="UTC") == told.prometheus.spend(["service"], timezone="UTC")
        for token in (None, "wrong"):
            with (
                StatsClient(url, token, certificate=ours.authority) as client,
                pytest.raises(StatsError, match="token"),
            ):
                client.totals()
        with StatsClient(url, "s3cret") as client, pytest.raises(Unreachable, match="certificate verify failed"):
            client.totals()
    finally:
        server.stop()
