"""The Resource of our own pipeline: the application's attributes, and an instance id of this process alone.

Exact totals in PromQL need one ``service.instance.id`` per process. An id pinned from outside
(``OTEL_RESOURCE_ATTRIBUTES``) is shared by parent and children and survives restarts, so it moves to
``openhands.service.instance.id`` and a fresh one takes its place.

What the user writes into that variable is meant to be sent. What detectors find out about people, machines and paths
is not, unless ``OPENHANDS_OTEL_SEND`` lists it.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Collection, Mapping

from opentelemetry.sdk.environment_variables import OTEL_RESOURCE_ATTRIBUTES
from opentelemetry.sdk.resources import (
    TELEMETRY_SDK_LANGUAGE,
    TELEMETRY_SDK_NAME,
    TELEMETRY_SDK_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.version import __version__ as VERSION

from openhands_otel._internal.export.config_file import Attribute, standard
from openhands_otel._internal.labels import clean
from openhands_otel._internal.metrics.points import sendable
from openhands_otel.semconv import LABEL_PREFIX, PINNED_INSTANCE_ID, SERVICE_INSTANCE_ID, SERVICE_NAME

DEFAULT_SERVICE_NAME = "openhands"
PROCESS_PID = "process.pid"
HOST_NAME = "host.name"
ENDUSER_ID = "enduser.id"
PERSONAL = ("enduser.", "user.", "host.name", "host.id", "host.ip", "host.mac", "process.owner", "process.command",
            "process.executable.path", "process.working_directory")  # fmt: skip
"""How attributes begin that name a person or a machine, or hold a path."""


def base_resource(labels: Mapping[str, str] | None = None, send: Collection[str] = ()) -> Resource:
    """What the standard variables say (or a file in their place), ``labels``, and what of people is to be sent."""
    configured = standard()
    resource = _detected() if configured.attributes is None else _configured(configured.attributes)
    attributes: dict[str, str] = {}
    name = str(resource.attributes.get(SERVICE_NAME, ""))
    if not name or name.startswith("unknown_service"):
        attributes[SERVICE_NAME] = DEFAULT_SERVICE_NAME
    given = _names(os.environ.get(OTEL_RESOURCE_ATTRIBUTES, ""))
    if configured.attributes is not None:
        given = set(configured.attributes)
    named = {LABEL_PREFIX + name: value for name, value in {**_told(resource, send), **(labels or {})}.items()}
    # Where it is not given the id is one that the SDK has made up.
    if SERVICE_INSTANCE_ID in given and PINNED_INSTANCE_ID not in given:
        attributes[PINNED_INSTANCE_ID] = str(resource.attributes.get(SERVICE_INSTANCE_ID, ""))
    sent = {
        sendable(name): sendable(value) if isinstance(value, str) else value
        for name, value in {**resource.attributes, **attributes, **named}.items()
        if name in given or name in send or not name.startswith(PERSONAL)
    }
    return Resource(sent, resource.schema_url)


def _told(resource: Resource, send: Collection[str]) -> dict[str, str]:
    """Labels that say what of people is to be sent."""
    found: dict[str, str] = {}
    if HOST_NAME in send:
        found["host"] = clean(resource.attributes.get(HOST_NAME) or socket.gethostname())
    if ENDUSER_ID in send:
        found["user"] = clean(resource.attributes.get(ENDUSER_ID, ""))
    return {name: value for name, value in found.items() if value}


def _detected() -> Resource:
    try:
        return Resource.create()
    except RuntimeError:
        # The SDK asks its detectors in a pool of threads, of which there are none any more when Python ends.
        about_sdk = {TELEMETRY_SDK_LANGUAGE: "python", TELEMETRY_SDK_NAME: "opentelemetry"}
        return Resource(about_sdk).merge(OTELResourceDetector().detect())


def _configured(attributes: Mapping[str, Attribute]) -> Resource:
    """What a file says, and nothing that detectors find out: those read the variables."""
    about_sdk = {TELEMETRY_SDK_LANGUAGE: "python", TELEMETRY_SDK_NAME: "opentelemetry", TELEMETRY_SDK_VERSION: VERSION}
    return Resource(about_sdk).merge(Resource(attributes))


def process_resource(base: Resource) -> Resource:
    """``base``, perhaps that of a parent process, as the Resource of this one; each call makes a new instance id."""
    attributes: dict[str, str | int] = {SERVICE_INSTANCE_ID: str(uuid.uuid4())}
    if PROCESS_PID in base.attributes:
        attributes[PROCESS_PID] = os.getpid()
    return base.merge(Resource(attributes))


def _names(given: str) -> set[str]:
    """Names of the attributes in a variable that holds them as ``name=value``, separated by commas."""
    return {pair.partition("=")[0].strip() for pair in given.split(",")}
