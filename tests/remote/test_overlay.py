"""Which numbers a remote conversation shows: the server's, the viewer's, or both."""

from __future__ import annotations

from typing import Any

import pytest

from openhands_otel._internal.remote.overlay import UNDER_WAY, overlaid, spent_before
from openhands_otel.stats import ConversationStats, TokenUsage, UsageMetrics


def metrics(cost: float, prompt: int = 0, **more: Any) -> dict[str, Any]:
    return {"accumulated_cost": cost, "accumulated_token_usage": {"prompt_tokens": prompt}, **more}


def seen(usages: dict[str, tuple[float, int]], children: float = 0.0, **more: Any) -> ConversationStats:
    total = sum(cost for cost, _ in usages.values())
    return ConversationStats(
        conversation_id="c",
        accumulated_cost=total,
        tree_cost=total + children,
        usage_to_metrics={
            name: UsageMetrics(accumulated_cost=cost, accumulated_token_usage=TokenUsage(prompt_tokens=prompt))
            for name, (cost, prompt) in usages.items()
        },
        **more,
    )


def costs(usages: dict[str, Any]) -> dict[str, float]:
    return {name: metrics["accumulated_cost"] for name, metrics in usages.items()}


def test_what_the_viewer_knows_comes_before_what_the_server_has_told() -> None:
    own = {"agent": metrics(0.1, 10, max_budget_per_task=3.0, costs=[]), "condenser": metrics(0.0)}
    result = overlaid(own, {}, seen({"agent": (0.5, 50), "title": (0.2, 5)}))
    assert costs(result) == {"agent": 0.5, "condenser": 0.0, "title": 0.2}
    assert result["agent"]["accumulated_token_usage"]["prompt_tokens"] == 50
    assert (result["agent"]["max_budget_per_task"], result["agent"]["costs"]) == (3.0, [])


def test_a_server_that_is_ahead_is_believed() -> None:
    own = {"agent": metrics(0.7, 70)}
    assert overlaid(own, {}, seen({"agent": (0.5, 50)})) == own


def test_a_server_whose_total_is_known_to_be_off_is_not() -> None:
    own = {"agent": metrics(0.7, 70), "ask-agent-llm": metrics(0.7, 70)}
    stats = seen({"agent": (0.5, 50), "ask-agent-llm": (0.2, 20)}, unreconciled_reasons=("meter_twice",))
    assert costs(overlaid(own, {}, stats)) == {"agent": 0.5, "ask-agent-llm": 0.2}


def test_calls_without_a_price_count_as_progress() -> None:
    result = overlaid({"agent": metrics(0.0, 10)}, {}, seen({"agent": (0.0, 30)}))
    assert result["agent"]["accumulated_token_usage"]["prompt_tokens"] == 30


@pytest.mark.parametrize("rolled_up", [0.0, 0.3, 0.4])
def test_what_is_under_it_is_there_once(rolled_up: float) -> None:
    own = {"agent": metrics(0.5), "task:1": metrics(rolled_up)}
    result = overlaid(own, {}, seen({"agent": (0.5, 0)}, children=0.4))
    assert sum(costs(result).values()) == pytest.approx(0.9)
    assert (UNDER_WAY in result) == (rolled_up < 0.4)


def test_what_was_spent_before_the_viewer_came_stays_in_the_sum() -> None:
    restored = {"agent": metrics(2.0, 200), "condenser": metrics(1.0, 100), "task:1": metrics(5.0)}
    before = spent_before(restored, seen({"agent": (0.25, 25)}, restored_cost=2.75))
    assert costs(before) == {"agent": 1.75, "condenser": 1.0}

    later = overlaid(restored, before, seen({"agent": (0.5, 50), "condenser": (0.125, 1)}, restored_cost=2.75))
    assert costs(later) == {"agent": 2.25, "condenser": 1.125, "task:1": 5.0}
    assert later["agent"]["accumulated_token_usage"]["prompt_tokens"] == 225


def test_a_server_that_is_ahead_for_a_moment_has_restored_nothing_by_that() -> None:
    assert spent_before({"agent": metrics(2.0)}, seen({"agent": (1.0, 0)}, restored_cost=0.0)) == {}


def test_the_sdk_takes_the_result_for_its_own() -> None:
    from openhands.sdk.conversation.conversation_stats import ConversationStats as OwnStats

    usages = overlaid({"agent": metrics(0.1)}, {}, seen({"agent": (0.5, 50), "title": (0.2, 5)}, children=0.3))
    combined = OwnStats.model_validate({"usage_to_metrics": usages}).get_combined_metrics()
    assert combined.accumulated_cost == pytest.approx(1.0)
    assert combined.accumulated_token_usage is not None
    assert combined.accumulated_token_usage.prompt_tokens == 55
