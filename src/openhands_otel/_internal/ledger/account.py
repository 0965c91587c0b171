"""What is known of one conversation, and the snapshot of it that is handed out.

The ledger keeps one account per conversation and changes it; everybody else reads.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from openhands_otel._internal.exact import ExactSum
from openhands_otel._internal.labels import Labels
from openhands_otel._internal.usages import by_usage, most_used, token_usage
from openhands_otel.events import OwnTotal, RunEnded
from openhands_otel.semconv import UNKNOWN, CostSource, Reason, Role, RunOutcome, Status, TokenType
from openhands_otel.stats import ConversationStats, CostShare, ModelCalls

AGREEMENT = 1e-9
"""US dollars up to which two totals agree."""


class Use(NamedTuple):
    """What all that a conversation spends is broken down by."""

    role: Role
    model: str
    provider: str
    usage_id: str
    labels: Labels = ()


@dataclass(slots=True)
class UseSpend:
    """What one use of a conversation spent."""

    cost: dict[CostSource, ExactSum] = field(default_factory=dict[CostSource, ExactSum])
    tokens: dict[TokenType, int] = field(default_factory=dict[TokenType, int])
    calls: int = 0
    unpriced: int = 0
    """Calls without a known price."""
    savings: ExactSum | None = None
    """How much more its input would have cost without a cache."""
    seconds: float | None = None
    """How long its calls took, all added up."""

    def saved(self, amount: float) -> None:
        """Its input would have cost so much more."""
        self.savings = self.savings or ExactSum()
        self.savings.add(amount)

    def spent(self, source: CostSource) -> ExactSum:
        """Where it holds what was spent at prices that ``source`` named."""
        spent = self.cost.get(source)
        if spent is None:
            spent = self.cost[source] = ExactSum()
        return spent


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended, and the code of its error; of one that has begun and not ended nothing is known."""

    how: RunOutcome | None = None
    error: str | None = None
    stands: bool = False
    """False once another run has begun."""


@dataclass(slots=True)
class RunTally:
    """Where a run began: calls, cost and tool calls of its conversation then."""

    calls: int
    cost: float
    tool_calls: int


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What one run came to."""

    ended: RunEnded
    calls: int
    tool_calls: int
    cost: float


@dataclass(slots=True)
class Account:
    """What is known of one conversation."""

    conversation_id: str
    parent_id: str | None = None
    agent: str = ""
    sdk_version: str = ""
    title: str | None = None
    """Where content is allowed."""
    status: Status = Status.IDLE
    outcome: RunResult | None = None
    """Of the last run that began in this process, or of the one before while that is under way."""
    trace_id: str | None = None
    """Of its last run, where that has a trace."""
    run: RunTally | None = None
    parts: dict[Use, UseSpend] = field(default_factory=dict[Use, UseSpend])
    calls: int = 0
    unpriced: int = 0
    tool_calls: int | None = None
    """None before the first."""
    longest_call_seconds: float | None = None
    first_call_unix_s: float | None = None
    last_call_unix_s: float | None = None
    """When its first and its last call began."""
    context_tokens: int | None = None
    context_limit: int | None = None
    restored_cost: float = 0.0
    budget: float | None = None
    own: OwnTotal | None = None
    unreconciled_cost: float | None = None
    """Our total, with what it had spent before, less OpenHands' own, when that was last read."""
    compared_cost: float = 0.0
    """Our total then, without what it had spent before."""
    misread: bool = False
    """Whether OpenHands recorded other amounts than were spent (``CostAdded.recorded``)."""
    unpriced_by_openhands: bool = False
    """Whether it recorded nothing where an ACP agent's tokens have a price."""
    running: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict[tuple[str, int], tuple[str, int]])
    """What runs now: (kind, call number) to (label, since when in unix nanoseconds)."""
    opened_at: int = 0
    updated_at: int = 0
    closed: bool = False

    @property
    def cost(self) -> dict[tuple[Use, CostSource], ExactSum]:
        """What each use spent, by who named the price."""
        return {(use, source): sum_ for use, part in self.parts.items() for source, sum_ in part.cost.items()}

    @property
    def total_cost(self) -> float:
        """Cost in this process."""
        total = ExactSum()
        for spent in self.cost.values():
            total.add(spent.value)
        return total.value

    def answered(self, part: UseSpend, seconds: float) -> None:
        """A call of ``part`` was answered after so long; what is no such number adds no time."""
        self.calls += 1
        part.calls += 1
        if math.isfinite(seconds) and seconds >= 0:
            part.seconds = (part.seconds or 0.0) + seconds
            self.longest_call_seconds = max(self.longest_call_seconds or 0.0, seconds)

    def called(self, at: int) -> None:
        """A call began (unix nanoseconds)."""
        moment = at / 1e9
        self.first_call_unix_s = min(self.first_call_unix_s or moment, moment)
        self.last_call_unix_s = max(self.last_call_unix_s or moment, moment)

    @property
    def spent_before(self) -> float | None:
        """What it had spent before this process, if it had."""
        return self.restored_cost or None

    def restore(self, own_total: float) -> None:
        """Take in what OpenHands says it had spent when it was opened, less what it has spent in this process.

        One that was closed and is resumed here has spent elsewhere what OpenHands' total has grown by meanwhile: the
        total itself may hold what sub-agents spent, or one meter twice.
        """
        if self.own is None:
            self.restored_cost = max(0.0, own_total - self.total_cost)
        else:
            elsewhere = own_total - self.own.total - (self.total_cost - self.compared_cost)
            self.restored_cost += elsewhere if elsewhere > AGREEMENT else 0.0

    def reconcile(self, own: OwnTotal | None) -> None:
        """Compare with OpenHands' own total as it is now; what is spent later says nothing about it."""
        if own is not None:
            self.own = own
            self.compared_cost = self.total_cost
            self.unreconciled_cost = self.compared_cost + self.restored_cost - own.total

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why the two totals differ; empty where they agree."""
        if self.own is None or abs(self.unreconciled_cost or 0.0) < AGREEMENT:
            return ()
        found = set(self.own.reasons)
        if any(use.usage_id not in self.own.usages for use, part in self.parts.items() if part.cost):
            found.add(Reason.UNREGISTERED_LLM)
        if self.misread:
            found.add(Reason.ACP_REPORT)
        if self.unpriced_by_openhands:
            found.add(Reason.ACP_UNPRICED)
        return tuple(sorted(found)) or (Reason.UNKNOWN,)

    @property
    def activity(self) -> tuple[str, int] | None:
        """What runs now and since when: a tool before an LLM call, the longest-running first."""
        if not self.running:
            return None
        return min(self.running.items(), key=lambda item: (item[0][0] != "tool", item[1][1]))[1]

    def stats(self) -> ConversationStats:
        """A copy to hand out, named as a viewer names what it knows over all processes."""
        shares, calls, tokens = self._shares(), self._calls(), self._tokens()
        context = self.context_tokens or 0, self.context_limit or 0
        model, provider = most_used(shares, calls)
        outcome = self.outcome if self.outcome is not None and self.outcome.stands else RunResult()
        activity, since = self.activity or (None, None)
        cost, labels = self.total_cost, dict(label for use in self.parts for label in use.labels)
        return ConversationStats(
            conversation_id=self.conversation_id,
            name=labels.get("name") or self.title,
            title=self.title,
            labels=labels,
            parent_id=self.parent_id,
            agent=self.agent or None,
            sdk_version=self.sdk_version or None,
            model_name=model,
            provider_name=provider,
            accumulated_cost=cost,
            tree_cost=cost,
            restored_cost=self.restored_cost,
            max_budget_per_task=self.budget,
            unreconciled_cost=self.unreconciled_cost,
            unreconciled_reasons=self.reasons,
            accumulated_token_usage=token_usage(tokens.values(), context),
            llm_calls=self.calls,
            tool_calls=self.tool_calls or 0,
            unpriced_calls=self.unpriced,
            cache_savings=math.fsum(part.savings.value for part in self.parts.values() if part.savings is not None),
            llm_seconds=math.fsum(part.seconds or 0.0 for part in self.parts.values()),
            longest_call_seconds=self.longest_call_seconds,
            first_call_unix_s=self.first_call_unix_s,
            last_call_unix_s=self.last_call_unix_s,
            calls_by_model=tuple(calls),
            costs=tuple(shares),
            usage_to_metrics=by_usage(shares, tokens, context, calls),
            status=self.status,
            outcome=outcome.how,
            error_type=outcome.error,
            activity=activity,
            activity_since=None if since is None else since / 1e9,
            closed=self.closed,
            started_unix_nano=self.opened_at,
            updated_unix_nano=self.updated_at,
        )

    def _shares(self) -> list[CostShare]:
        """Cost by role, model and usage id, dearest first."""
        costs: defaultdict[tuple[Role, str, str], ExactSum] = defaultdict(ExactSum)
        for (use, _), spent in self.cost.items():
            costs[use.role, use.model, use.usage_id].include(spent)
        shares = (
            CostShare(role=role, model=model, usage_id=usage_id or None, accumulated_cost=spent.value)
            for (role, model, usage_id), spent in costs.items()
        )
        return sorted(shares, key=lambda share: -share.accumulated_cost)

    def _calls(self) -> list[ModelCalls]:
        """Calls by model and provider, most first."""
        counts: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        for use, part in self.parts.items():
            if part.calls or part.unpriced:
                made = counts[use.model, use.provider]
                made[0] += part.calls
                made[1] += part.unpriced
        calls = (
            ModelCalls(model=model, provider=provider, llm_calls=made, unpriced_calls=unpriced)
            for (model, provider), (made, unpriced) in counts.items()
        )
        return sorted(calls, key=lambda part: -part.llm_calls)

    def _tokens(self) -> dict[str, dict[str, int]]:
        """Tokens by usage id and type."""
        tokens: dict[str, dict[str, int]] = {}
        for use, part in self.parts.items():
            for kind, count in part.tokens.items():
                of_usage = tokens.setdefault(use.usage_id or UNKNOWN, {})
                of_usage[kind] = of_usage.get(kind, 0) + count
        return tokens
