"""Turns each call of ``Metrics.add_cost``, ``add_token_usage``, ``add_response_latency`` and ``merge`` into an event.

The first three are the only doors through which spend enters the SDK, in every release, and they have two callers:
``Telemetry.on_response`` and ``ACPAgent._record_usage``. Both are surrounded too, since only they know who named the
price (a response header, custom prices, litellm's table; an ACP agent or an estimate), and only at their end is it
sure that a response with tokens had no price. ``merge`` rolls up what was counted before: announced, never counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from openhands_otel._internal.capture.acp import AcpSessions, Given
from openhands_otel._internal.capture.calls import CallHooks
from openhands_otel._internal.capture.identity import (
    OpenConversations,
    acp_origin,
    current_call,
    current_number,
    origin_outside_calls,
)
from openhands_otel._internal.capture.modalities import modalities_of
from openhands_otel._internal.capture.prices import AgentTokens, PriceQuery
from openhands_otel._internal.capture.response import Response, attempt_begins, usage_worked_out
from openhands_otel._internal.capture.response_metadata import metadata_of
from openhands_otel._internal.clock import now_ns
from openhands_otel._internal.patching.patching import Leave, Patches
from openhands_otel._internal.scoped import set_until
from openhands_otel.events import (
    CostAdded,
    Event,
    LatencyRecorded,
    MetricsMerged,
    Origin,
    ResponseRecorded,
    TokensUsed,
)
from openhands_otel.semconv import CostSource

_response: ContextVar[Response | None] = ContextVar("openhands_otel_response", default=None)


class Recording:
    """The hooks on ``Metrics``, ``Telemetry.on_response`` and ``ACPAgent._record_usage``."""

    def __init__(
        self,
        publish: Callable[[Event], None],
        conversations: OpenConversations,
        calls: CallHooks,
        detailed: Callable[[], bool],
    ) -> None:
        self._publish = publish
        self._detailed = detailed
        self._calls = calls
        self._conversations = conversations
        self._sessions = AcpSessions()

    def patch_metrics(self, patches: Patches, module: ModuleType) -> list[str]:
        """Hook the class ``Metrics``; returns the names it lacks."""
        hooks = {
            "add_cost": self._cost,
            "add_token_usage": self._tokens,
            "add_response_latency": self._latency,
            "merge": self._merge,
        }
        metrics = module.Metrics
        return [f"Metrics.{name}" for name, hook in hooks.items() if not patches.after(metrics, name, hook)]

    def patch_telemetry(self, patches: Patches, module: ModuleType) -> list[str]:
        """Hook ``Telemetry.on_response``, and what it asks for the price; returns the names it lacks."""
        patches.after(module.Telemetry, "on_error", self._failed)
        hooks = {"on_response": self._enter_response, "_compute_cost": self._enter_price}
        return [f"Telemetry.{name}" for name, hook in hooks.items() if not patches.around(module.Telemetry, name, hook)]

    def patch_stream_builder(self, patches: Patches, module: ModuleType) -> list[str]:
        """Hook where litellm works out what a stream used. It may do without: nothing is said to lack."""
        builder = getattr(module, "ChunkProcessor", None)
        if builder is not None:
            patches.after(builder, "calculate_usage", self._usage_of_stream)
        return []

    def patch_acp(self, patches: Patches, module: ModuleType) -> list[str]:
        """Hook ``ACPAgent._record_usage``; returns the names it lacks."""
        found = patches.around(module.ACPAgent, "_record_usage", self._enter_acp_turn)
        return [] if found else ["ACPAgent._record_usage"]

    def _origin(self, metrics: Any) -> Origin:
        response = _response.get()
        return response.origin if response is not None else origin_outside_calls(self._conversations, metrics)

    def _cost(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        metrics, *given = args
        amount = float(given[0] if given else kwargs["value"])
        response = _response.get()
        source, spent = CostSource.PRICE_TABLE, amount
        if response is not None:
            source, spent = response.cost_source(), response.spent(amount)
        self._publish(CostAdded(now_ns(), self._origin(metrics), spent, source, amount, current_number()))

    def _tokens(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        metrics, *values = args
        given = dict(zip(_TOKEN_ARGUMENTS, values, strict=False)) | kwargs
        # The SDK takes whatever its records make a whole number of.
        prompt, completion = int(given["prompt_tokens"]), int(given["completion_tokens"])
        cache_read, cache_write = int(given.get("cache_read_tokens", 0)), int(given.get("cache_write_tokens", 0))
        response = _response.get()
        if response is not None:
            response.tokens, response.cache_read = True, cache_read
            if response.turn is not None:
                response.agent_tokens = AgentTokens(prompt, completion, cache_read, cache_write)
                # ACP agents report cached tokens beside the input, everybody else inside it.
                prompt = prompt + cache_read + cache_write
        model, of_input, of_output = None, (), ()
        if response is not None and response.answer is not None and self._detailed():
            metadata = metadata_of(response.answer)
            model = None if metadata is None else metadata.model
            of_input, of_output = modalities_of(response.answer)
        self._publish(
            TokensUsed(
                at=now_ns(),
                origin=self._origin(metrics),
                input=prompt,
                output=completion,
                cache_read=cache_read,
                cache_write=cache_write,
                reasoning=int(given.get("reasoning_tokens", 0)),
                context_window=int(given.get("context_window", 0)),
                response_id=given.get("response_id", ""),
                call=current_number(),
                response_model=model,
                input_modalities=of_input,
                output_modalities=of_output,
            )
        )

    def _latency(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        metrics, *given = args
        value = given[0] if given else kwargs["value"]
        response_id = given[1] if len(given) > 1 else kwargs.get("response_id", "")
        # The SDK itself records what is negative (a clock set back) as zero.
        seconds = max(0.0, float(value))
        self._publish(LatencyRecorded(now_ns(), self._origin(metrics), seconds, response_id, current_number()))

    def _merge(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        metrics, *given = args
        other = given[0] if given else kwargs["other"]
        self._publish(MetricsMerged(now_ns(), self._origin(metrics), other.accumulated_cost))

    def _enter_response(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave:
        telemetry = args[0]
        response = args[1] if len(args) > 1 else kwargs.get("resp")
        origin = origin_outside_calls(self._conversations, telemetry.metrics)
        if current_call() is not None:
            return self._enter(Response(origin, telemetry, response))
        end_call = self._calls.enter_unseen(origin, _seconds_since_request(telemetry))
        leave_response = self._enter(Response(origin, telemetry, response))

        def leave(result: Any, error: BaseException | None) -> None:
            try:
                leave_response(result, error)
            finally:
                end_call(response, None)

        return leave

    def _failed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        telemetry = args[0]
        if current_call() is None:
            error = args[1] if len(args) > 1 else kwargs.get("_err")
            origin = origin_outside_calls(self._conversations, telemetry.metrics)
            self._calls.enter_unseen(origin, _seconds_since_request(telemetry))(None, type(error).__name__)

    def _enter_price(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave | None:
        response = _response.get()
        if response is None or response.closing:
            return None
        telemetry, answer, *more = args if len(args) > 1 else (*args, kwargs.get("resp"))
        keywords = {name: value for name, value in kwargs.items() if name != "resp"}

        def leave(result: Any, error: BaseException | None) -> None:
            if result is not None:
                response.asked = PriceQuery(telemetry, answer, tuple(more), keywords, float(result))

        return leave

    def _usage_of_stream(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        usage_worked_out(args[1] if len(args) > 1 else kwargs["chunks"])

    def _enter_acp_turn(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leave:
        given = Given.read(args, kwargs)
        origin = acp_origin(self._conversations, given.agent, given.session_id)
        turn = self._sessions.turn(origin.conversation_id, given)
        for used in turn.untold or ():
            self._publish(
                TokensUsed(
                    at=now_ns(),
                    origin=origin,
                    input=used.input + used.cache_read + used.cache_write,
                    output=used.output,
                    cache_read=used.cache_read,
                    cache_write=used.cache_write,
                    reasoning=used.reasoning,
                    context_window=0,
                    response_id="",
                )
            )
        return self._enter(Response(origin, None, None, turn))

    def _enter(self, response: Response) -> Leave:
        put_back = set_until(_response, response)

        def leave(result: Any, error: BaseException | None) -> None:
            response.closing = True
            try:
                self._end(response)
            finally:
                put_back()
                attempt_begins()

        return leave

    def _end(self, response: Response) -> None:
        missed = response.turn.take_report() if response.turn is not None else 0.0
        if missed:
            # OpenHands adds nothing for a report that does not grow, such as one that starts again at zero.
            self._publish(CostAdded(now_ns(), response.origin, missed, CostSource.ACP_REPORTED, 0.0))
        estimated = response.estimate()
        if estimated:
            self._publish(CostAdded(now_ns(), response.origin, estimated, CostSource.ACP_ESTIMATED, 0.0))
        free = None if response.priced else response.free()
        priced = response.priced or free is not None
        if priced or response.may_cost:
            savings = response.savings() if priced else None
            self._publish(ResponseRecorded(now_ns(), response.origin, priced, savings, free))


def _seconds_since_request(telemetry: Any) -> float | None:
    started = getattr(telemetry, "_req_start", None)
    return max(0.0, time.time() - started) if isinstance(started, float) and started else None


_TOKEN_ARGUMENTS = (
    "prompt_tokens",
    "completion_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "context_window",
    "response_id",
    "reasoning_tokens",
)
