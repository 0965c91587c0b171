"""Any history of which something is forgotten now and then comes to what was spent, less what was forgotten.

The machine of ``test_any_history.py`` goes on as it does: what was forgotten is sent again, late, twice and in any
order, to viewers that are stopped, killed and started again. It must not come back, and what is spent afterwards must
count.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from openhands_otel._internal.collector.archive.forgetting import ErasureRequest
from openhands_otel._internal.collector.erasing import erase
from openhands_otel._internal.spend.rows import QUARTER_S

from .test_any_history import EPOCH, HISTORIES, SECOND, AnyHistory

_QUARTER = EPOCH // SECOND // QUARTER_S * QUARTER_S
requests = st.sampled_from(
    [
        ErasureRequest(service="agent"),
        ErasureRequest(conversation="a"),
        ErasureRequest(service="agent", conversation="b"),
        ErasureRequest(since=_QUARTER, until=_QUARTER + 2 * QUARTER_S),
        ErasureRequest(conversation="a", since=_QUARTER + QUARTER_S),
        ErasureRequest(until=_QUARTER + QUARTER_S),
    ]
)


@dataclass
class _Known:
    """What a viewer says of each model and conversation."""

    cost: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    conversations: dict[str, float] = field(default_factory=dict)


class AnyErasure(AnyHistory):
    """See the module's docstring."""

    @rule(request=requests, dry_run=st.sampled_from([False, False, True]))
    def something_is_forgotten(self, request: ErasureRequest, dry_run: bool) -> None:
        before = self.known()
        self.viewer.__exit__()
        done = erase(self.folder / "history.sqlite3", request, dry_run)
        self.viewer = self.start_viewer()
        after = self.known()
        lost = 0.0
        for model, cost in before.cost.items():
            self.cost[model].append(after.cost.get(model, 0.0) - cost)
            self.calls[model] += after.calls.get(model, 0) - before.calls[model]
            lost += cost - after.cost.get(model, 0.0)
        for conversation, cost in before.conversations.items():
            self.by_conversation[conversation].append(after.conversations.get(conversation, 0.0) - cost)
        assert lost == pytest.approx(0.0 if dry_run else done.cost, abs=1e-9)
        if dry_run:
            assert after == before
        elif request == ErasureRequest(service="agent"):
            assert self.viewer.cost == pytest.approx(0.0, abs=1e-9)
            assert not after.conversations
        elif request == ErasureRequest(conversation="a"):
            assert "a" not in after.conversations
        elif request.since is not None and request.conversation is None:
            spent = self.viewer.spent(since=request.since, until=request.until or 4e9, undated=False)
            assert sum(amount.cost.value for amount in spent.values()) == pytest.approx(0.0, abs=1e-9)

    def known(self) -> _Known:
        while self.viewer.run(self.viewer.housekeeping.save()):
            pass
        shares = self.viewer.store.breakdown().by_model
        known = _Known(
            {share.name: share.accumulated_cost for share in shares}, {share.name: share.llm_calls for share in shares}
        )
        for conversation in self.by_conversation:
            stats = self.viewer.archived(conversation)
            if stats is not None:
                known.conversations[conversation] = json.loads(stats)["accumulated_cost"]
        return known


@pytest.mark.parametrize("counts_calls", [False, True])
def test_what_was_taken_from_a_service_goes_with_its_last_row(counts_calls: bool) -> None:
    """Kind: what corrects a sum stays when the sum goes, and a model is left with less than nothing."""
    machine = AnyErasure()
    machine.begin(kinds=[("own", False, False, counts_calls)])
    machine.spend(index=0, amount=0.1, model="gpt", conversation="b")
    machine.send(index=0, answered=False, arrives=True, passes_s=0)
    machine.something_is_forgotten(ErasureRequest(service="agent", conversation="b"), dry_run=False)
    machine.something_is_forgotten(ErasureRequest(since=_QUARTER, until=_QUARTER + 2 * QUARTER_S), dry_run=False)
    assert not any(machine.known().cost.values())
    machine.teardown()


@pytest.mark.timeout(3600)
def test_any_history_comes_to_what_was_not_forgotten() -> None:
    """Kind: what is forgotten comes back by another door, or takes something else with it."""
    few = settings(
        max_examples=HISTORIES,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(AnyErasure, settings=few)
