"""One response while OpenHands records it: the source of its price, the amounts to count, what is known at its end.

A price of zero is a price, though OpenHands adds none of it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, cast

from openhands_otel._internal.capture import prices
from openhands_otel._internal.capture.acp import NOISE, Turn
from openhands_otel.events import Origin
from openhands_otel.semconv import CostSource

_attempt: ContextVar[Attempt | None] = ContextVar("openhands_otel_attempt", default=None)
"""An object, since the chunks of a streamed answer may come in a task of their own, which inherits it."""


class Attempt:
    """What is known of an answer on its way."""

    __slots__ = ("counted_by_litellm",)

    def __init__(self) -> None:
        self.counted_by_litellm = False
        """Whether it is streamed and did not say what was used."""


def attempt_begins() -> None:
    """Nothing is known of the next answer."""
    _attempt.set(Attempt())


def usage_worked_out(chunks: Any) -> None:
    """litellm has put the usage of a streamed answer together, of these chunks.

    What is none of theirs it has counted itself, in words. It puts that on a chunk of its own, as if it came from the
    provider, and OpenHands lets it put those together once more.
    """
    attempt = _attempt.get()
    if attempt is not None and not any(map(_has_usage, chunks)):
        attempt.counted_by_litellm = True


def _has_usage(chunk: Any) -> bool:
    if isinstance(chunk, dict):
        return _says_something(cast(dict[str, Any], chunk).get("usage"))
    hidden: dict[str, Any] = getattr(chunk, "_hidden_params", None) or {}
    return _says_something(getattr(chunk, "usage", None)) or _says_something(hidden.get("usage"))


def _says_something(usage: Any) -> bool:
    """Older releases of litellm put a usage of zeros on a chunk where the provider sent none."""
    counts = cast(dict[str, Any], usage) if isinstance(usage, dict) else getattr(usage, "__dict__", {})
    return any(counts.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))


class Response:
    """See the module's docstring; ``turn`` is set if it is an ACP agent's, ``telemetry`` and ``answer`` if not."""

    __slots__ = (
        "_added",
        "_estimated",
        "_lacks_price",
        "agent_tokens",
        "answer",
        "asked",
        "cache_read",
        "closing",
        "origin",
        "telemetry",
        "tokens",
        "turn",
    )

    def __init__(self, origin: Origin, telemetry: Any, answer: Any, turn: Turn | None = None) -> None:
        self.origin = origin
        self.telemetry = telemetry
        self.answer = answer
        self.turn = turn
        self.asked: prices.PriceQuery | None = None
        """The price that OpenHands has worked out; None if there is none."""
        self.closing = False
        """Whether OpenHands is done with it: what is asked for now, we ask."""
        self.tokens = False
        self.cache_read = 0
        self.agent_tokens: prices.AgentTokens | None = None
        """What an ACP agent reports of its turn."""
        self._added = False
        self._estimated = 0.0
        """US dollars that OpenHands estimated an ACP agent's turn at."""
        self._lacks_price = False
        """Whether a call of an ACP agent's turn has no price, though others may have one."""

    def cost_source(self) -> CostSource:
        """Who named the price that is being added now."""
        if self.turn is not None:
            return CostSource.ACP_REPORTED if self.turn.reported else CostSource.ACP_ESTIMATED
        if prices.named_by_header(self.answer):
            return CostSource.PROVIDER
        if self._has_no_usage():
            return CostSource.ESTIMATED
        return CostSource.CUSTOM if prices.has_custom_price(self.telemetry) else CostSource.PRICE_TABLE

    def spent(self, amount: float) -> float:
        """What is to be counted when OpenHands adds ``amount``."""
        if self.turn is None:
            spent = amount
        elif self.turn.reported:
            spent = self.turn.take_report()
        elif self.tokens:
            self._estimated = amount
            spent = self.turn.take_estimate(amount)
        else:
            # OpenHands estimates after it has recorded the tokens: this is a report that cannot be used.
            return 0.0
        self._added = self.turn is None or not self.turn.foreign_currency
        # Two sums of the same floats, in another order.
        return amount if abs(spent - amount) <= NOISE else spent

    def estimate(self) -> float:
        """What is new by the tokens of an ACP agent's turn that neither the agent nor OpenHands has priced.

        OpenHands asks the table by the model that it was told to set, if it was, and without cached tokens; the session
        knows its own, and of Codex' turns OpenHands knows one call.
        """
        turn = self.turn
        if turn is None or turn.reported:
            return 0.0
        calls = list(turn.untold or ())
        own = self.agent_tokens if turn.of_codex or not self._added else None
        if own is not None:
            calls.append(own)
        prices_of_calls = [prices.price_of_tokens(self.origin.model, each) for each in calls]
        self._lacks_price = None in (prices_of_calls if not self._added else prices_of_calls[: len(turn.untold or ())])
        known = [price for price in prices_of_calls if price is not None]
        if not known:
            return 0.0
        self._added = not turn.foreign_currency
        return turn.take_estimate(max(0.0, sum(known) - (self._estimated if own is not None else 0.0)))

    def free(self) -> CostSource | None:
        """Who said that it costs nothing, where nothing was added; None if nobody did, so that its price is unknown."""
        if self.turn is not None:
            return CostSource.ACP_REPORTED if self.turn.reported else None
        if self.asked is None or self.asked.cost != 0:
            return None
        if prices.named_by_header(self.answer):
            return CostSource.PROVIDER
        if prices.has_custom_price(self.telemetry) and self._has_free_prices():
            return CostSource.CUSTOM
        if prices.from_litellms_cache(self.answer) or prices.is_free(self.asked, has_tokens=self.tokens):
            return CostSource.PRICE_TABLE
        return None

    @property
    def priced(self) -> bool:
        """Whether something was added for it, and for all of it."""
        return self._added and not self._lacks_price and not self.may_lack_calls

    @property
    def may_cost(self) -> bool:
        """Whether something was used for it, or may have been."""
        return self.tokens or self.turn is None or self.turn.untold != [] or self.turn.foreign_currency

    @property
    def may_lack_calls(self) -> bool:
        """Whether an ACP agent may have made calls for it whose tokens nobody tells."""
        return self.turn is not None and self.turn.untold is None and not self.turn.reported

    def savings(self) -> float | None:
        """What its cached input would have cost more; None where that is not known, or the price not litellm's."""
        if self.asked is None or not self.cache_read or prices.named_by_header(self.answer):
            return None
        if prices.has_custom_price(self.telemetry) or (self.asked.cost == 0 and self.free() is None):
            return None
        return prices.cache_savings(self.asked, self.cache_read)

    def _has_free_prices(self) -> bool:
        """Whether it is for its own prices, and not for lack of tokens, that it costs nothing."""
        return self.tokens or not (self.telemetry.input_cost_per_token or self.telemetry.output_cost_per_token)

    def _has_no_usage(self) -> bool:
        """Whether the provider did not say what was used."""
        attempt = _attempt.get()
        if attempt is not None and attempt.counted_by_litellm:
            return True
        usage = getattr(self.answer, "usage", None)
        return not any(getattr(usage, name, 0) for name in ("prompt_tokens", "completion_tokens", "input_tokens"))
