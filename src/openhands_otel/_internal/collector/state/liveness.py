"""Which processes are alive, by what they have promised and by what became of their connections.

A process says how often it is heard of: with its heartbeat, which repeats everything, and, where the viewer answers it
directly, with a beat every few seconds as long as it has an open conversation. It is *silent* when it is overdue by its
own word, *ended* when it has said farewell, and *gone* when its connection broke without one and nothing was heard of
it since. Any later word revokes silent and gone; ended is revoked by a new promise.

Time is counted while this process is awake itself: after a restart, a suspend or a stop nobody else is to blame, and
what was said meanwhile still waits to be read.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from openhands_otel import semconv
from openhands_otel._internal.collector.points.series import Point
from openhands_otel._internal.combining.building import OVERDUE, Life
from openhands_otel._internal.host.neighbours import Address, is_connected

HEARTBEAT_S: Final = 60.0
"""Of a process that has promised nothing."""
SUSPECTED_S: Final = 5.0
"""A broken connection means a death if nothing is heard for so long; whoever beats is heard before."""
RETURN_S: Final = 15.0
"""After a restart of ours senders take so long to come back, whatever they beat."""
LONGEST_TICK_S: Final = 1.0
"""What a tick may take; in what is longer we were not awake."""
BEAT_S: Final = 3.0
_PROCESSES_A_BEAT: Final = 150
"""So many may beat at that rate: more of them beat more slowly, so that the beats of all cost the same."""
_LONGEST_BEAT_S: Final = 60.0
_LONGEST_PROMISE_S: Final = 86_400.0

PROMISES: Final = frozenset({semconv.HEARTBEAT_INTERVAL.name, semconv.BEAT_INTERVAL.name})


@dataclass(slots=True)
class Pulse:
    """One process. Times are seconds awake; 0 is the start of this run of the viewer."""

    life: Life = Life.LIVE
    heard: float | None = None
    heartbeat_s: float = HEARTBEAT_S
    beat_s: float | None = None
    promised: bool = False
    """Whether it has said how often it is heard of."""
    suspected: float | None = None
    """Since when it has no connection any more."""
    keeps_connection: bool = False
    """Whether it is one of those that keep a connection for their life."""
    call: tuple[Address, Address] | None = None
    """The ends of the connection that its last call over gRPC came by, ours first."""

    def hear(self, awake: float) -> None:
        """Something came from it."""
        self.heard = awake
        self.suspected = None
        if self.life is not Life.ENDED:
            self.life = Life.LIVE

    def note(self, point: Point) -> bool:
        """Take a promise, or its end; True when it is another than before."""
        before = (self.life, self.heartbeat_s, self.beat_s, self.promised)
        value = point.value if isinstance(point.value, int | float) else None
        kept = value if value is not None and 0 < value <= _LONGEST_PROMISE_S else None
        if point.metric.name == semconv.BEAT_INTERVAL.name:
            self.beat_s = kept
        elif kept is not None:
            self.heartbeat_s, self.promised, self.life = kept, True, Life.LIVE
        elif point.value is None:
            self.life = Life.ENDED
        return before != (self.life, self.heartbeat_s, self.beat_s, self.promised)

    @property
    def patience_s(self) -> float:
        return OVERDUE * min(self.heartbeat_s, self.beat_s or self.heartbeat_s)

    def judge(self, awake: float) -> bool:
        """Look at the time; True if the process has become silent or gone."""
        before = self.life
        if self.life is Life.ENDED:
            return False
        if self.suspected is not None and awake - self.suspected > SUSPECTED_S:
            self.life = Life.GONE
        elif self.life is Life.LIVE:
            patience = max(self.patience_s, RETURN_S) if self.heard is None else self.patience_s
            if awake - (self.heard or 0.0) > patience:
                self.life = Life.SILENT
        return self.life is not before

    def record(self) -> dict[str, Any]:
        """What outlives this run."""
        return {"life": str(self.life), "heartbeat_s": self.heartbeat_s, "beat_s": self.beat_s, "told": self.promised}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Pulse:
        return cls(Life(record["life"]), None, record["heartbeat_s"], record["beat_s"], record["told"])


class Alive(Protocol):
    """What has a pulse."""

    pulse: Pulse


class Lives:
    """All processes in memory: the clock, who was heard when, and whose connections ended."""

    def __init__(self, processes: Mapping[str, Alive], dirty: set[str]) -> None:
        self.awake = 0.0
        self._processes = processes
        self._dirty = dirty
        self._connections: Counter[str] = Counter()
        self._revived: set[str] = set()

    @property
    def wanted_beat_s(self) -> float:
        """How often a process should beat, with so many of them."""
        return min(_LONGEST_BEAT_S, BEAT_S * max(1.0, len(self._processes) / _PROCESSES_A_BEAT))

    def pulse(self, key: str) -> Pulse | None:
        process = self._processes.get(key)
        return None if process is None else process.pulse

    def begin(self) -> None:
        """What was heard until now is as old as this run."""
        for process in self._processes.values():
            process.pulse.heard = None

    def tick(self, passed_s: float) -> None:
        self.awake += min(max(passed_s, 0.0), LONGEST_TICK_S)

    def at(self, unix_s: float) -> float:
        """When that was. What arrives has arrived just now, but who asks may say otherwise."""
        return self.awake - max(0.0, time.time() - unix_s)

    def hear(self, key: str, points: Iterable[Point], unix_s: float) -> None:
        """A process spoke."""
        pulse = self.pulse(key)
        if pulse is None:
            return
        life = pulse.life
        pulse.hear(self.at(unix_s))
        for point in points:
            if point.metric.name in PROMISES and pulse.note(point):
                self._dirty.add(key)
        if life is not Life.LIVE and pulse.life is Life.LIVE:
            self._revived.add(key)
            self._dirty.add(key)

    def take_revived(self) -> set[str]:
        """Processes that were taken for dead, silent or ended, and have spoken since this was last asked."""
        revived, self._revived = self._revived, set()
        return revived

    def judge(self, ahead_s: float = 0.0) -> None:
        """Look who is overdue by now, or will be."""
        for key, process in self._processes.items():
            pulse = process.pulse
            if pulse.judge(self.awake + ahead_s):
                self._dirty.add(key)
            if pulse.life is Life.SILENT and pulse.call is not None:
                # gRPC does not tell when a connection ends.
                if is_connected(*pulse.call) is False:
                    pulse.life = Life.GONE
                pulse.call = None

    def called(self, key: str, here: Address, there: Address) -> None:
        """A process of this machine spoke over gRPC."""
        pulse = self.pulse(key)
        if pulse is not None:
            pulse.call = here, there

    def connected(self, key: str, keeps_connection: bool) -> None:
        """A process speaks over a connection that it did not use before."""
        self._connections[key] += 1
        pulse = self.pulse(key)
        if pulse is not None:
            pulse.keeps_connection |= keeps_connection

    def disconnected(self, keys: set[str], broke: bool) -> None:
        """A connection that these spoke over ended; ``broke``: not by us."""
        for key in keys:
            self._connections[key] -= 1
            if self._connections[key] > 0:
                continue
            del self._connections[key]
            pulse = self.pulse(key)
            # Of others it says nothing: they may connect for each export, or hand on what a process said.
            if pulse is None or not (pulse.keeps_connection or pulse.beat_s is not None):
                continue
            if broke and len(keys) == 1 and pulse.life is not Life.ENDED:
                pulse.suspected = self.awake
