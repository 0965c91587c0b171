"""A wall clock is taken for the order of things nowhere: the process's own clock, whatever the wall clock does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openhands_otel._internal.clock import AHEAD_NS, FALLEN_NS, SECOND_NS, Clock

START = 1_800_000_000 * SECOND_NS
STEPS = st.lists(
    st.tuples(
        st.sampled_from((0, 1, 999, 1001, -1, -30_000, -59_999, -60_001, -1_800_000, 86_400_000, -86_400_000)),
        st.integers(0, 200_000),
        st.booleans(),
    ),
    max_size=30,
)
"""The wall clock is set, time passes (both milliseconds), and whether anybody looks at the wall clock then."""


class Machine:
    def __init__(self) -> None:
        self.true = 0
        self.off = 0
        self.clock = Clock(lambda: START + self.true + self.off, lambda: self.true)

    def now(self) -> int:
        return self.clock.now_ns()


@given(STEPS)
def test_stamps_never_go_back_within_an_epoch_and_are_never_far_behind(steps: list[tuple[int, int, bool]]) -> None:
    """Kind: the sender's wall clock taken for the order of things; any order of steps, falls and waits."""
    machine = Machine()
    stamped, epoch = machine.now(), machine.clock.epoch
    for step_ms, wait_ms, watched in steps:
        machine.off += step_ms * 1_000_000
        if watched:
            machine.clock.watch()
            wall = START + machine.true + machine.off
            assert -AHEAD_NS <= machine.now() - wall <= FALLEN_NS
        if machine.clock.epoch == epoch:
            assert machine.now() >= stamped
        stamped, epoch = machine.now(), machine.clock.epoch
        machine.true += wait_ms * 1_000_000
        assert machine.now() == stamped + wait_ms * 1_000_000


def test_small_falls_are_ignored_until_together_they_are_large() -> None:
    machine = Machine()
    for falls in range(1, 7):
        machine.off -= 10 * SECOND_NS
        machine.clock.watch()
        assert (machine.clock.epoch, machine.now()) == (0, START), falls
    machine.off -= SECOND_NS
    machine.clock.watch()
    assert (machine.clock.epoch, machine.now()) == (1, START - 61 * SECOND_NS)


def test_what_has_said_nothing_yet_takes_the_wall_clocks_word() -> None:
    machine = Machine()
    machine.off -= 30 * SECOND_NS
    machine.clock.start_over()
    assert machine.now() == START - 30 * SECOND_NS
