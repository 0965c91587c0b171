"""Who is let in, and for what: the viewer's one token, named tokens, and this user's own processes."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from openhands_otel._internal.host.named_tokens import Grant, NamedTokens

VISITOR_KEY: Final = "visitor"
"""Where a request's scope has who asks, in ``state``."""

FULL_GRANT: Final = Grant()
"""What the one token of the viewer permits, and whoever needs none."""


class Token:
    """Who is let in: for the viewer's one token, for a named one, or as this user's own process (``of_strangers``: only
    others need a token)."""

    def __init__(self, secret: str | None, of_strangers: bool = False, named: NamedTokens | None = None) -> None:
        self._expected = None if secret is None else f"Bearer {secret}".encode()
        self.of_strangers = of_strangers
        self._named = NamedTokens(None) if named is None else named
        self._login_code: str | None = None

    def permits(self, authorization: str | bytes | None, is_mine: bool = False) -> Grant | None:
        """What somebody may do who shows this; None: nothing."""
        if self.of_strangers and is_mine:
            return FULL_GRANT
        if self._expected is None and not self.of_strangers:
            return FULL_GRANT
        shown = authorization.encode(errors="replace") if isinstance(authorization, str) else authorization or b""
        scheme, _, rest = shown.partition(b" ")
        # The scheme's name is case-insensitive, the token is not. With nothing to compare, strangers stay outside.
        if self._expected is not None and hmac.compare_digest(scheme.title() + b" " + rest.strip(), self._expected):
            return FULL_GRANT
        return self._named.grant_of(rest.strip().decode("latin-1")) if scheme.title() == b"Bearer" else None

    def holds(self, grant: Grant) -> bool:
        """Whether what somebody was let in for is still permitted."""
        return grant is FULL_GRANT or self._named.holds(grant)

    def login_code(self) -> str:
        """A word that is good for the token, once."""
        self._login_code = secrets.token_urlsafe(24)
        return self._login_code

    def login(self, code: str) -> str | None:
        """The token for the word; None if it is another, or was used."""
        expected, shown = self._login_code, code.encode(errors="replace")
        if expected is None or self._expected is None or not hmac.compare_digest(expected.encode(), shown):
            return None
        self._login_code = None
        return self._expected.decode().partition(" ")[2]


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks."""

    grant: Grant
    token: Token

    @property
    def may_stay(self) -> bool:
        """Whether it is still permitted: what stays open for hours has to ask again."""
        return self.token.holds(self.grant)


def visitor_of(request: Request) -> Visitor:
    """Who asks, as the gate found it."""
    return getattr(request.state, VISITOR_KEY)


def not_for_this(grant: Grant) -> str:
    """What the bearer of a token is told who asks for what it does not permit."""
    return f"the token '{grant.name}' is not for this: it may {grant.described}"
