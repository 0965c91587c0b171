"""Puts a meter's three lists together into calls: which cost belongs to which tokens, and when that was.

``Telemetry.on_response`` writes a latency for each answer, then a cost if there is one, then tokens if there are any.
Tokens and latencies have the answer's id; costs have none, but a time. So costs go with answers by their order, where
as many of a model have a cost as there are costs. Where that is not so (some had no price), tokens are dated by their
place among the costs, and none is said to belong to a cost.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openhands_otel._internal.openhands_files.state_file import CostEntry, Meter, UsageEntry

CopyKey = tuple[object, ...]
"""Equal for two entries if one is a copy of the other."""


@dataclass(slots=True)
class Spent:
    """One cost, in US dollars."""

    key: CopyKey
    model: str
    time: float | None
    cost: float


@dataclass(slots=True)
class Answered:
    """One answer of a provider: tokens and seconds. ``calls`` is 0 for what is no answer of its own."""

    key: CopyKey
    model: str
    time: float | None
    usage: UsageEntry | None
    seconds: float
    unpriced: bool = False


NO_TOKENS: Final = (0, 0, 0, 0, 0)


def spent(meter: Meter) -> list[Spent]:
    """The costs. Model, amount and time tell a copy: the time is one of microseconds."""
    found: list[Spent] = []
    for index, entry in enumerate(meter.costs):
        key: CopyKey = (entry.model, entry.cost, entry.time)
        if entry.time is None:
            # Copies are copies of whole lists, so they have it at the same place.
            key = (*key, index, _first_id(meter))
        found.append(Spent(key, entry.model, entry.time, entry.cost))
    return found


def answered(meter: Meter) -> list[Answered]:
    """The answers, in their order, dated by the costs; where there are no latencies, by tokens or costs alone."""
    answers = _answers(meter)
    by_model: dict[str, list[Answered]] = defaultdict(list)
    for answer in answers:
        by_model[answer.model].append(answer)
    costs: dict[str, list[CostEntry]] = defaultdict(list)
    for entry in meter.costs:
        costs[entry.model].append(entry)
    for model, group in by_model.items():
        _date(group, costs.pop(model, []))
    date_neighbours(answers)
    if not answers:
        return [Answered(("cost", *cost.key), cost.model, cost.time, None, 0.0) for cost in spent(meter)]
    return answers


def _answers(meter: Meter) -> list[Answered]:
    waiting: dict[str, deque[Answered]] = defaultdict(deque)
    answers: list[Answered] = []
    for latency in meter.latencies:
        answer = Answered((), latency.model, None, None, latency.seconds)
        waiting[latency.response_id].append(answer)
        answers.append(answer)
    for usage in meter.usages:
        queue = waiting[usage.response_id]
        if queue:
            answer = queue.popleft()
            answer.usage, answer.model = usage, usage.model
        else:
            answers.append(Answered((), usage.model, None, usage, 0.0))
    for response_id, queue in waiting.items():
        for answer in queue:
            answer.key = ("", response_id, answer.model, answer.seconds)
    for index, answer in enumerate(answers):
        if answer.usage is not None:
            usage = answer.usage
            # How long it took is told to the last digit, which an id of a local model's server is not.
            alone = () if answer.seconds or usage.response_id else (index, _first_id(meter))
            answer.key = (usage.response_id, usage.model, usage.tokens, answer.seconds, *alone)
    return answers


def _date(answers: Sequence[Answered], costs: Sequence[CostEntry]) -> None:
    with_tokens = [answer for answer in answers if answer.usage is not None]
    for exact in (answers, with_tokens):
        if len(exact) == len(costs):
            for answer, cost in zip(exact, costs, strict=True):
                answer.time = cost.time
            return
    previous = -1
    for index, answer in enumerate(with_tokens):
        if not costs:
            answer.unpriced = True
            continue
        place = index * len(costs) // len(with_tokens)
        answer.time = costs[place].time
        answer.unpriced = place == previous
        previous = place


def date_neighbours(answers: Sequence[Answered]) -> None:
    """What has no time is as old as the one before it, or else the one behind."""
    for sequence in (answers, list(reversed(answers))):
        time: float | None = None
        for answer in sequence:
            if answer.time is None:
                answer.time = time
            time = answer.time


def _first_id(meter: Meter) -> str:
    entries = meter.latencies or meter.usages
    return entries[0].response_id if entries else ""
