"""The Resource of our own pipeline: the application's attributes, and an instance id of this process alone.

Exact totals in PromQL need one ``service.instance.id`` per process. An id pinned from outside
(``OTEL_RESOURCE_ATTRIBUTES``) is shared by parent and children and survives restarts, so it moves to
``openhands.service.instance.id`` and a fresh one takes its place.
"""

from __future__ import annotations

import os
import uuid

from opentelemetry.sdk.environment_variables import OTEL_RESOURCE_ATTRIBUTES
from opentelemetry.sdk.resources import (
    TELEMETRY_SDK_LANGUAGE,
    TELEMETRY_SDK_NAME,
    OTELResourceDetector,
    Resource,
)

from openhands_otel._internal.metrics.points import sendable
from openhands_otel.semconv import PINNED_INSTANCE_ID, SERVICE_INSTANCE_ID, SERVICE_NAME

DEFAULT_SERVICE_NAME = "openhands"
PROCESS_PID = "process.pid"


def base_resource() -> Resource:
    """What the standard variables say."""
    resource = _detected()
    attributes: dict[str, str] = {}
    name = str(resource.attributes.get(SERVICE_NAME, ""))
    if not name or name.startswith("unknown_service"):
        attributes[SERVICE_NAME] = DEFAULT_SERVICE_NAME
    given = _names(os.environ.get(OTEL_RESOURCE_ATTRIBUTES, ""))
    # Where it is not given the id is one that the SDK has made up.
    if SERVICE_INSTANCE_ID in given and PINNED_INSTANCE_ID not in given:
        attributes[PINNED_INSTANCE_ID] = str(resource.attributes.get(SERVICE_INSTANCE_ID, ""))
    sent = {
        sendable(name): sendable(value) if isinstance(value, str) else value
        for name, value in {**resource.attributes, **attributes}.items()
    }
    return Resource(sent, resource.schema_url)


def _detected() -> Resource:
    try:
        return Resource.create()
    except RuntimeError:
        # The SDK asks its detectors in a pool of threads, of which there are none any more when Python ends.
        about_sdk = {TELEMETRY_SDK_LANGUAGE: "python", TELEMETRY_SDK_NAME: "opentelemetry"}
        return Resource(about_sdk).merge(OTELResourceDetector().detect())


def process_resource(base: Resource) -> Resource:
    """``base``, perhaps that of a parent process, as the Resource of this one; each call makes a new instance id."""
    attributes: dict[str, str | int] = {SERVICE_INSTANCE_ID: str(uuid.uuid4())}
    if PROCESS_PID in base.attributes:
        attributes[PROCESS_PID] = os.getpid()
    return base.merge(Resource(attributes))


def _names(given: str) -> set[str]:
    """Names of the attributes in a variable that holds them as ``name=value``, separated by commas."""
    return {pair.partition("=")[0].strip() for pair in given.split(",")}
