"""Whose instance id is whose: one that the user has given is found again, whatever else has a name like it."""

from __future__ import annotations

import pytest

from openhands_otel._internal.metrics.resource import base_resource, process_resource
from openhands_otel.semconv import PINNED_INSTANCE_ID, SERVICE_INSTANCE_ID

GIVEN = {
    "none": ("", None),
    "pinned": ("service.instance.id=pod-7", "pod-7"),
    "pinned, with spaces": ("a=b , service.instance.id = pod-7", "pod-7"),
    "under our own name": ("openhands.service.instance.id=pod-7", "pod-7"),
    "under both": ("service.instance.id=pod-7,openhands.service.instance.id=shard-1", "shard-1"),
    "a name that ends alike": ("my.service.instance.id=pod-7", None),
    "a name that begins alike": ("service.instance.id.old=pod-7", None),
    "in a value": ("note=service.instance.id", None),
}


@pytest.mark.parametrize(("given", "pinned"), GIVEN.values(), ids=GIVEN)
def test_an_id_that_was_given_is_kept_and_none_is_made_up(
    given: str, pinned: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kind: a name looked for anywhere in a text, not among the names that stand in it."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", given)
    base = base_resource()
    first, second = process_resource(base), process_resource(process_resource(base))
    assert first.attributes.get(PINNED_INSTANCE_ID) == second.attributes.get(PINNED_INSTANCE_ID) == pinned
    assert first.attributes[SERVICE_INSTANCE_ID] not in (second.attributes[SERVICE_INSTANCE_ID], "pod-7")
