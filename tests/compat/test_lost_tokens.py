"""A release of OpenHands with a litellm that it does not work with: a call's cost is recorded, and its tokens are lost.

So it is with Agent Canvas as it installs itself. ``make test-compat`` has such a pair: ``compat_env.py --pairs``.
"""

from __future__ import annotations

from importlib.metadata import version

import pytest

from openhands_otel._internal.doctor.surroundings import look
from openhands_otel._internal.doctor.versions import check_versions

from .scenario import EXACT, Scenario, said
from .traced import Traced

PACKAGES = {name: version(name) for name in ("openhands-sdk", "litellm")}


def fails() -> bool:
    sdk, litellm = (tuple(map(int, PACKAGES[name].split(".")[:2])) for name in ("openhands-sdk", "litellm"))
    return sdk == (1, 49) and litellm >= (1, 95)


pytestmark = pytest.mark.skipif(not fails(), reason="this release works with its litellm")


def run_twice(scenario: Scenario) -> str:
    scenario.script("main", [said("Done.", 1000, 50), said("Done.", 1200, 60)])
    conversation = scenario.conversation(scenario.llm())
    for text in ("hello", "again"):
        with pytest.raises(Exception, match="cache_creation_tokens"):
            scenario.run(conversation, text)
    scenario.settle()
    return str(conversation.id)


def test_the_money_is_exact(scenario: Scenario) -> None:
    run_twice(scenario)
    assert len(scenario.bill().entries) == 2
    assert scenario.fleet() == pytest.approx(scenario.bill().total, abs=EXACT)


def test_the_calls_have_a_cost_and_no_tokens(scenario: Scenario, traced: Traced) -> None:
    """What the viewer marks "cost without tokens"."""
    run_twice(scenario)
    chats = traced.named("chat")
    assert len(chats) == 2
    for span in chats:
        assert span.attributes
        assert span.attributes["gen_ai.usage.cost"]
        assert not [name for name in span.attributes if name.endswith("_tokens")]


def test_the_doctor_names_the_constraint() -> None:
    problems = [each for each in check_versions(dict(look())) if each.level == "problem"]
    assert any("'litellm<1.95'" in each.cure for each in problems)
