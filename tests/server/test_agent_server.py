"""An agent server under our instrumentation, a client elsewhere, and a viewer: what each of them sees."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from viewer_process import Viewer, wait_for

from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel.client import StatsClient
from openhands_otel.stats import ConversationStats, ConversationUpdate

from .agent_server import AgentServer, RemoteClient
from .conftest import CLIENT_SERVICE, HEADER_TOKEN, TOKEN, Open
from .scripts import CALL, TITLE, calling, cost_of, playing, running

EXACT = 1e-9
WAIT_S = 60
TOOL_S = 60


def settled(viewer: Viewer, conversation: str, cost: float) -> ConversationStats:
    """The viewer's stats of a conversation once its tree has this cost."""

    def look() -> ConversationStats | None:
        found = [stats for stats in viewer.state().conversations if stats.conversation_id == conversation]
        return found[0] if found and found[0].tree_cost == pytest.approx(cost, abs=EXACT) else None

    return wait_for(look, f"a cost of {cost} at the viewer", WAIT_S)


def combined(stats: dict[str, Any]) -> float:
    return sum(metrics["accumulated_cost"] for metrics in stats.values())


def agrees(client: RemoteClient, conversation: str, cost: float) -> dict[str, Any]:
    """What ``RemoteConversation`` itself says, once it is this cost."""

    def look() -> dict[str, Any] | None:
        stats = client.stats(conversation=conversation)
        return stats if combined(stats) == pytest.approx(cost, abs=EXACT) else None

    return wait_for(look, f"a cost of {cost} in RemoteConversation's stats", WAIT_S)


def test_a_viewer_and_the_client_see_a_cost_while_the_tool_behind_it_runs(
    opened: Open, client: RemoteClient, server: AgentServer, viewer: Viewer, llm_server: LLMServer
) -> None:
    """The tool waits until both have seen it."""
    by_viewer, by_client, in_time = (
        server.directory / name for name in ("seen-by-viewer", "seen-by-client", "in-time")
    )
    seen = f"[ -e {by_viewer} ] && [ -e {by_client} ]"
    wait = f"for i in $(seq {TOOL_S * 10}); do {seen} && touch {in_time} && break; sleep 0.1; done"
    llm_server.script("main", playing(running("echo one"), running(wait)))
    conversation = opened()

    def watch() -> None:
        for update in StatsClient(viewer.url, viewer.token).stream():
            stats = update.conversation if isinstance(update, ConversationUpdate) else None
            if stats is not None and stats.conversation_id == conversation and agent_cost(stats) > cost_of(CALL):
                by_viewer.touch()
                return

    threading.Thread(target=watch, daemon=True).start()
    costs = client.run(
        conversation=conversation, text="hello", touch=str(by_client), above=cost_of(CALL) + cost_of(TITLE)
    )
    assert in_time.exists()
    assert costs == sorted(costs), "it never goes back"

    bill = llm_server.bill
    stats = settled(viewer, conversation, bill.total)
    assert stats.accumulated_token_usage.prompt_tokens == bill.tokens.input
    usage = agrees(client, conversation, bill.total)["agent"]["accumulated_token_usage"]
    assert (usage["prompt_tokens"], usage["cache_read_tokens"]) == (bill.tokens.input, bill.tokens.cached)


def agent_cost(stats: ConversationStats) -> float:
    return sum(share.accumulated_cost for share in stats.costs if share.role == "agent")


def test_after_another_llm_a_question_and_a_sub_agent_the_totals_are_the_bill(
    opened: Open, client: RemoteClient, viewer: Viewer, llm_server: LLMServer
) -> None:
    needs_newer(client, "openhands.tools.task", "openhands.sdk.llm.call_context")
    task = {"prompt": "[[script:sub]] look around", "subagent_type": "general-purpose", "description": "a task"}
    llm_server.script("main", playing(calling("task", **task)))
    llm_server.script("sub", playing())
    llm_server.script("other", playing())
    conversation = opened("by-marker", tools=("task",))

    client.run(conversation=conversation, text="[[script:main]] hello")
    assert {entry.script for entry in llm_server.bill.entries} == {"main", "sub"}
    stats = settled(viewer, conversation, llm_server.bill.total)
    assert stats.descendants == 1
    agrees(client, conversation, llm_server.bill.total)

    other = client.llm_as_json(provider=llm_server.base_url("other"), model="gpt-4o-mini", usage_id="other")
    assert client.post(conversation=conversation, path="switch_llm", body={"llm": other}) == 200
    client.run(conversation=conversation, text="and now?")
    settled(viewer, conversation, llm_server.bill.total)
    usages = agrees(client, conversation, llm_server.bill.total)
    billed = sum(entry.cost or 0 for entry in llm_server.bill.entries if entry.script == "other")
    assert usages["other"]["accumulated_cost"] == pytest.approx(billed, abs=EXACT)

    calls = len(llm_server.bill.entries)
    client.ask(conversation=conversation, question="how far are you?")
    assert len(llm_server.bill.entries) == calls + 1
    stats = settled(viewer, conversation, llm_server.bill.total)
    assert "ask_agent" in {share.role for share in stats.costs}
    agrees(client, conversation, llm_server.bill.total)


def test_a_tool_sees_no_token_and_nothing_of_the_launcher(
    opened: Open, client: RemoteClient, server: AgentServer, llm_server: LLMServer
) -> None:
    llm_server.script("main", playing(running(f"env > {server.directory}/seen-by-a-tool")))
    client.run(conversation=opened(), text="hello")

    seen = (server.directory / "seen-by-a-tool").read_text()
    assert "HOME=" in seen
    assert TOKEN not in seen
    assert HEADER_TOKEN not in seen
    assert "OTEL" not in seen
    assert "PYTHONPATH" not in seen


def test_the_bridge_counts_nothing_and_is_undone(
    opened: Open, client: RemoteClient, viewer: Viewer, llm_server: LLMServer
) -> None:
    llm_server.script("main", playing(running("echo one")))
    conversation = opened()
    client.run(conversation=conversation, text="hello")
    settled(viewer, conversation, llm_server.bill.total)
    agrees(client, conversation, llm_server.bill.total)

    with StatsClient(viewer.url, viewer.token) as reader:
        spent = {share.name: share.accumulated_cost for share in reader.totals().by_service}
    assert spent["openhands.agent_server"] >= llm_server.bill.total
    assert spent.get(CLIENT_SERVICE, 0) == 0
    assert client.bridged()
    client.uninstrument()
    try:
        assert not client.bridged()
        assert combined(client.stats(conversation=conversation)) <= llm_server.bill.total + EXACT
    finally:
        client.instrument()
    assert client.bridged()
    agrees(client, conversation, llm_server.bill.total)


def needs_newer(client: RemoteClient, *modules: str) -> None:
    for module in modules:
        if not client.has(module=module):
            pytest.skip(f"this release of OpenHands has no {module}")
