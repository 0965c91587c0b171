"""Takes what looks like a secret out of a text before it may leave: keys, tokens, credentials, and known values.

It would rather take out too much. A quantifier before or behind a fixed word has an upper bound, so that a long text
costs time in proportion to its length. What is raised here reaches nobody but the guard of whoever captures: nothing is
exported then.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import quote

REDACTED: Final = "[redacted]"
SHORTEST_VALUE: Final = 6
"""Of an environment variable: a shorter one ("1", "true") would be found everywhere."""
REMEMBERED: Final = 256
"""Texts that need not be looked at again."""

_SECRET_NAME: Final = (
    r"(?:pass(?:word|wd|phrase)|\bpwd|secret|token|credential|cookie|private[_-]?key|access[_-]?key|account[_-]?key"
    r"|signing[_-]?key|encryption[_-]?key|api[_-]?key|auth[_-]?key|authorization|connection[_-]?string)"
)
_SECRET_VARIABLE: Final = re.compile(_SECRET_NAME + r"|(?:^|_)(?:key|auth|pat|dsn|pwd|pass)(?:_|$)", re.IGNORECASE)

_WHOLE: Final = (
    # Private keys, also where the end is cut off.
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)",
    # OpenAI, Anthropic, OpenRouter and others; Stripe.
    r"\b(?:sk|rk|pk)[-_](?:live_|test_)?[A-Za-z0-9_-]{16,}",
    r"\b(?:AKIA|ASIA|ABIA|ACCA|AGPA|AIDA|AROA|ANPA)[A-Z0-9]{16}\b",
    r"\bgh[pousr]_[A-Za-z0-9]{20,}",
    r"\bgithub_pat_[A-Za-z0-9_]{20,}",
    r"\bglpat-[A-Za-z0-9_-]{16,}",
    r"\bAIza[A-Za-z0-9_-]{30,}",
    r"\bya29\.[A-Za-z0-9._-]{16,}",
    r"\bGOCSPX-[A-Za-z0-9_-]{16,}",
    r"\bxox[a-z]-[A-Za-z0-9-]{10,}",
    r"\bxapp-[A-Za-z0-9-]{10,}",
    r"hooks\.slack\.com/services/[A-Za-z0-9/]{10,}",
    r"\b(?:hf|npm|gsk|dop_v1|r8|pplx)_[A-Za-z0-9]{20,}",
    r"\b(?:pypi|xai|tvly|pplx|lin_api|nvapi)-[A-Za-z0-9_-]{16,}",
    r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    r"\bhv[sb]\.[A-Za-z0-9_-]{20,}",
    # JSON web tokens.
    r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*",
)
_BEHIND_A_NAME: Final = (
    # name=value, name: value, "name": "value", also as JSON in a string; with quotes up to the closing one.
    rf"({_SECRET_NAME}[\w.-]{{0,40}}[\\\"']{{0,4}}\s{{0,5}}(?:=>|:=|[=:])\s{{0,5}})"
    r"(?:(?:bearer|basic|token|digest)\s{1,5})?"
    r"(?:\"(?:[^\"\\]|\\[\s\S]){0,4000}\"|\\{1,3}\"[^\"]{0,4000}\"|'[^']{0,4000}'|[^\s,;&]+)",
    rf"((?:^|\s)--?{_SECRET_NAME}[\w-]{{0,40}}\s{{1,5}})(?:\"[^\"]{{0,4000}}\"|'[^']{{0,4000}}'|\S+)",
    r"(\bbearer\s{1,5})[A-Za-z0-9._~+/=-]{8,}",
    r"((?:^|\s)(?:-u|--user)\s{1,5})\S{1,300}:\S+",
    r"([?&](?:key|sig|signature|code|auth)=)[^\s&#\"']+",
    # Who is in a URL: user:password@ or a token@.
    r"(://)(?:[^\s/@\"'<>]{1,300}|[^\s/@:\"'<>]{0,200}:[^\s@\"'<>]{1,300})@",
)


class Redaction:
    """``more`` are further patterns; raises re.error where one of them is none."""

    def __init__(self, more: Iterable[str] = (), environ: Mapping[str, str] = os.environ) -> None:
        flags = re.IGNORECASE | re.MULTILINE
        self._whole = [re.compile(pattern) for pattern in (*more, *_WHOLE)]
        self._behind_a_name = [re.compile(pattern, flags) for pattern in _BEHIND_A_NAME]
        self._environ = environ
        # Each call of a conversation has all texts of those before it.
        self._cleaned = functools.lru_cache(maxsize=REMEMBERED)(self._clean)

    def text(self, text: str, secrets: Collection[str] = ()) -> str:
        """``text`` without what looks like a secret, and without any of ``secrets``."""
        return self._cleaned(text, frozenset(value for value in (*secrets, *self._values()) if value))

    def _clean(self, text: str, values: frozenset[str]) -> str:
        known = {each for value in values for each in _spellings(value)}
        # The longest first: one may be part of another.
        for value in sorted(known, key=len, reverse=True):
            text = text.replace(value, REDACTED)
        for pattern in self._whole:
            text = pattern.sub(REDACTED, text)
        for pattern in self._behind_a_name:
            text = pattern.sub(rf"\g<1>{REDACTED}", text)
        return text

    def is_secret_name(self, name: str) -> bool:
        """Whether what goes by this name is a secret whatever it looks like."""
        return _SECRET_VARIABLE.search(name) is not None

    def _values(self) -> Iterator[str]:
        for name, value in tuple(self._environ.items()):
            if len(value) >= SHORTEST_VALUE and self.is_secret_name(name):
                yield value


def _spellings(value: str) -> Iterator[str]:
    """As it is, as part of a JSON string, as part of a URL."""
    yield value
    yield json.dumps(value)[1:-1]
    yield quote(value, safe="")
