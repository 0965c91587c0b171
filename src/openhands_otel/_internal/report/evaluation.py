"""Joins spend by instance with what an evaluation wrote: the ``output.jsonl`` of OpenHands' benchmarks.

Its lines have ``instance_id``, ``attempt``, ``error``, ``test_result``, ``metrics``; ``output.critic_attempt_N.jsonl``
has each attempt, ``output.jsonl`` the best. Spend has the labels ``instance`` and ``attempt`` (see docs/labels.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from openhands_otel._internal.exact import MONEY_LIMIT, ExactSum
from openhands_otel._internal.money import money
from openhands_otel._internal.report.errors import SourceError
from openhands_otel._internal.spend.conditions import absent
from openhands_otel._internal.spend.grouping import merge
from openhands_otel._internal.spend.zones import zone_of
from openhands_otel.stats import Spend, SpendGroup

INSTANCE_LABEL: Final = "instance"
ATTEMPT: Final = "attempt"
_PATTERN: Final = "output*.jsonl"
_LINE_LIMIT: Final = 256 * 1024 * 1024
"""A line has the whole history of a conversation."""
_VERDICTS: Final = ("resolved", "success", "passed")
AttemptKey = tuple[str, str]
"""Instance and attempt."""


@dataclass(slots=True)
class Evaluation:
    """What its files say."""

    results: dict[AttemptKey, str] = field(default_factory=dict[AttemptKey, str])
    costs: dict[AttemptKey, float] = field(default_factory=dict[AttemptKey, float])
    """US dollars, as OpenHands itself has added them up."""
    skipped: list[tuple[Path, str]] = field(default_factory=list[tuple[Path, str]])


def read_evaluation(paths: Iterable[Path]) -> Evaluation:
    """Files, or folders with some below; a later line about the same attempt holds. Raises SourceError."""
    evaluation = Evaluation()
    for path in paths:
        files = sorted(path.rglob(_PATTERN)) if path.is_dir() else [path]
        if not files:
            raise SourceError(f"{path} has no {_PATTERN}: name the folder that an evaluation writes into")
        for file in files:
            try:
                with file.open("rb") as lines:
                    _read(lines, file, evaluation)
            except OSError as error:
                raise SourceError(f"{file} cannot be read: {error.strerror}") from None
    return evaluation


def _read(lines: IO[bytes], file: Path, evaluation: Evaluation) -> None:
    number = 0
    while line := lines.readline(_LINE_LIMIT):
        number += 1
        try:
            found: object = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        instance = _at(found, "instance_id")
        if not isinstance(instance, str):
            if line.strip():
                evaluation.skipped.append((file, f"line {number} is no result of an instance"))
            continue
        attempt = _at(found, ATTEMPT)
        key = instance, str(attempt if isinstance(attempt, int) else 1)
        evaluation.results[key] = _result(found)
        cost = _at(found, "metrics", "accumulated_cost")
        if isinstance(cost, int | float) and 0 <= cost <= MONEY_LIMIT:
            evaluation.costs[key] = float(cost)


def _result(found: object) -> str:
    """``error``, ``resolved`` or ``unresolved`` where it says so, else ``done``."""
    if _at(found, "error"):
        return "error"
    for where in (("test_result",), ("test_result", "report")):
        for name in _VERDICTS:
            verdict = _at(found, *where, name)
            if isinstance(verdict, bool):
                return "resolved" if verdict else "unresolved"
    return "done"


def _at(found: Any, *names: str) -> Any:
    """What stands at a path of a document; None where there is nothing."""
    for name in names:
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return found  # pyright: ignore[reportUnknownVariableType]


def joined(spend: Spend, evaluation: Evaluation) -> Spend:
    """With the result of each instance, or attempt, and with those for which nothing was spent.

    ``spend`` is grouped by ``instance``, perhaps by ``attempt``, and by whatever else; it is not cut to its top.
    """
    results = evaluation.results if ATTEMPT in spend.by else _last(evaluation.results)
    whole = set(spend.by) <= {INSTANCE_LABEL, ATTEMPT}
    groups = list(spend.groups)
    if spend.by[-1] in (INSTANCE_LABEL, ATTEMPT):
        groups = [each.model_copy(update={"outcome": results.get(_key(each, spend), each.outcome)}) for each in groups]
    if whole:
        known = {_key(each, spend) for each in groups}
        groups += _without_spend(results, known, spend)
    told = ExactSum(evaluation.costs.values()).value
    said = f"The evaluation's own figures, of {len(evaluation.costs):,} attempts, add up to {money(told)}"
    every = spend.model_copy(update={"groups": tuple(groups), "remarks": (*spend.remarks, said)})
    # Attempts of one instance stand together again.
    return merge([every], zone_of(spend.timezone))


def _last(results: Mapping[AttemptKey, str]) -> dict[AttemptKey, str]:
    """Of each instance the result of its last attempt."""
    ordered = sorted(results.items(), key=lambda item: int(item[0][1]))
    return {(instance, ""): result for (instance, _), result in ordered}


def _key(group: SpendGroup, spend: Spend) -> AttemptKey:
    attempt = group.keys.get(ATTEMPT, "") if ATTEMPT in spend.by else ""
    # One that has no label is the first, as in the file.
    return group.keys.get(INSTANCE_LABEL, ""), "1" if ATTEMPT in spend.by and attempt == absent(ATTEMPT) else attempt


def _without_spend(results: Mapping[AttemptKey, str], known: set[AttemptKey], spend: Spend) -> Iterator[SpendGroup]:
    for (instance, attempt), result in sorted(results.items()):
        if (instance, attempt) not in known:
            keys = {INSTANCE_LABEL: instance, ATTEMPT: attempt}
            yield SpendGroup(keys={name: keys[name] for name in spend.by}, outcome=result)
