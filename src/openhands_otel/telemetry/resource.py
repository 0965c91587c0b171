"""The Resource of our own pipeline: the application's attributes, and an instance id of this process alone.

Exact totals in PromQL need one ``service.instance.id`` per process. An id pinned from outside
(``OTEL_RESOURCE_ATTRIBUTES``) is shared by parent and children and survives restarts, so it moves to
``openhands.service.instance.id`` and a fresh one takes its place.
"""

from __future__ import annotations

import os
import uuid

from opentelemetry.sdk.environment_variables import OTEL_RESOURCE_ATTRIBUTES
from opentelemetry.sdk.resources import Resource

from openhands_otel.semconv import PINNED_INSTANCE_ID, SERVICE_INSTANCE_ID, SERVICE_NAME

DEFAULT_SERVICE_NAME = "openhands"


def build_resource() -> Resource:
    """Resource for this process, from the standard variables; each call makes a new instance id."""
    resource = Resource.create()
    attributes: dict[str, str] = {SERVICE_INSTANCE_ID: str(uuid.uuid4())}
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        attributes[SERVICE_NAME] = DEFAULT_SERVICE_NAME
    # Without this variable the id is one that the SDK has made up.
    if SERVICE_INSTANCE_ID in os.environ.get(OTEL_RESOURCE_ATTRIBUTES, ""):
        attributes[PINNED_INSTANCE_ID] = str(resource.attributes.get(SERVICE_INSTANCE_ID, ""))
    return resource.merge(Resource(attributes))
