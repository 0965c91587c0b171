"""Removes what looks like a secret from text before it leaves the process: keys, tokens, credentials, known values.

It would rather take out too much. A quantifier before or behind a fixed word has an upper bound, so that a long text
costs time in proportion to its length. All look at the text as it was given: what one has taken out could hide from
the next the rest of a longer secret. What is raised here reaches nobody but the guard of whoever captures: nothing is
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
    r"(?:pass(?:word|wd|phrase)|\bpwd|secret|token|credential|cookie|(?:private|access|account|signing"
    r"|encryption|api|auth)[ _-]?key|authorization|connection[_-]?string)"
)
_SECRET_VARIABLE: Final = re.compile(_SECRET_NAME + r"|(?:^|_)(?:key|auth|pat|dsn|pwd|pass)(?:_|$)", re.IGNORECASE)

_COLOUR: Final = re.compile(r"(?:\x1b|\\u001b)\[[0-9;?]{0,20}[A-Za-z]", re.IGNORECASE)
"""A terminal's, also in JSON. It would part a name from its value, and a key where somebody has searched for it."""

_START: Final = r"(?:\b|(?<=_)|(?<=\\[bfnrtv])|(?<=%[0-9A-Fa-f]{2}))"
"""Of a word, also behind an escaped character: a line in JSON begins with \\n."""

_WHOLE: Final = (
    # Private keys, also where the end is cut off.
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)",
    # JSON web tokens. Nothing has to follow the first part: each beginning would look for it up to the text's end.
    r"eyJ(?:[A-Za-z0-9_-]{16,}(?:\.[A-Za-z0-9_-]*){0,4}|[A-Za-z0-9_-]{3,40}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){0,3})",
    r"hooks\.slack\.com/services/[A-Za-z0-9/]{10,}",
    _START
    + "(?:"
    + "|".join(
        (
            # OpenAI, Anthropic, OpenRouter and others; Stripe.
            r"[srp]k[-_](?:live_|test_)?[A-Za-z0-9_-]{16,}",
            r"whsec_[A-Za-z0-9_-]{16,}",
            r"A(?:KIA|SIA|BIA|CCA|GPA|IDA|ROA|NPA)[A-Z0-9]{16}(?![A-Za-z0-9])",
            r"gh[pousr]_[A-Za-z0-9]{20,}",
            r"github_pat_[A-Za-z0-9_]{20,}",
            r"gl[a-z]{2,8}-[A-Za-z0-9_-]{16,}",
            r"AIza[A-Za-z0-9_-]{30,}",
            r"ya29\.[A-Za-z0-9._-]{16,}",
            r"GOCSPX-[A-Za-z0-9_-]{16,}",
            r"xox[a-z]-[A-Za-z0-9-]{10,}",
            r"xapp-[A-Za-z0-9-]{10,}",
            r"(?:hf|npm|gsk|dop_v1|r8|pplx)_[A-Za-z0-9]{20,}",
            r"(?:pypi|xai|tvly|pplx|lin_api|nvapi)-[A-Za-z0-9_-]{16,}",
            r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
            r"hv[sb]\.[A-Za-z0-9_-]{20,}",
        )
    )
    + ")",
)

# Short names only as parts of longer ones: "key: value" and "auth" are said of anything.
_NAME: Final = rf"(?:{_SECRET_NAME}[\w.-]{{0,40}}|(?<=[_-])(?:key|auth|pat|dsn|pwd|pass)(?![A-Za-z]))"
_QUOTED: Final = (
    r"(?:[bfru]{0,2}(?:\"{3}[\s\S]{0,4000}?\"{3}|'{3}[\s\S]{0,4000}?'{3}"
    r"|\"(?:[^\"\\]|\\[\s\S]){0,4000}\"|'(?:[^'\\]|\\[\s\S]|''){0,4000}')"
    # A string in a string.
    r"|\\{1,3}\"[^\"]{0,4000}\"|\\{1,3}'[^']{0,4000}')"
)
# With a comma, a semicolon, an ampersand in it, unless another name or another value begins there.
_WORD: Final = r"(?:[^\s,;&]|[,;&](?=[^\s\"'{\[])(?![\w.-]{1,60}[=:]))+"
_VALUE: Final = (
    rf"(?:{_QUOTED}|\[[^\]]{{0,1000}}\]|\{{[^}}]{{0,1000}}\}}"
    # A block in YAML.
    r"|[|>][-+]?[ \t]{0,5}\n(?:[ \t]{1,60}\S[^\n]*(?:\n|\Z))+"
    # The first word may be a type, as in password: str = "...".
    rf"|{_WORD}(?:\s{{1,3}}=\s{{1,3}}(?:{_QUOTED}|\S+))?)"
)
_BEHIND_A_NAME: Final = (
    # name=value, name: value, "name": "value", ["name"] = "value", also as JSON in a string; name: NAME, value: ...
    rf"({_NAME}[\\\"'\])]{{0,4}}"
    r"(?:,?\s{0,40}[\\\"']{0,4}\bvalue[\\\"']{0,4}\s{0,5}[=:]"
    r"|\s{0,9}(?:[=!]={1,2}|=>|[:?+]?=|:|%3[AD]|(?<=\s)(?=[\"'])))\s{0,9})"
    rf"(?:(?:bearer|basic|token|digest)\s{{1,5}})?{_VALUE}",
    # Of several words, as long as the line is.
    r"((?:authorization|cookie|passphrase)[\w-]{0,20}[\\\"']{0,4}\s{0,5}[:=]\s{0,5})[^\s\"'][^\n\"']*",
    # ("name", "value"), and an element of XML.
    rf"(\(\s{{0,5}}[\"'][\w.-]{{0,40}}?{_NAME}[\"'],\s{{0,5}}){_QUOTED}",
    rf"(<[\w:.-]{{0,40}}?{_NAME}(?:\s[^<>]{{0,300}})?>)[^<]+",
    rf"((?:^|\s)--?{_SECRET_NAME}[\w-]{{0,40}}\s{{1,5}})(?:\"[^\"]{{0,4000}}\"|'[^']{{0,4000}}'|\S+)",
    r"(\bbearer\s{1,5})[A-Za-z0-9._~+/=-]{8,}",
    r"((?:^|\s)(?:-u|--(?:proxy-)?user)[\s=]{0,5})"
    r"(?:\"[^\"\n]{1,300}:[^\"\n]{0,300}\"|'[^'\n]{1,300}:[^'\n]{0,300}'|\S{1,300}:\S+)",
    r"([?&](?:x-(?:amz|goog)-)?(?:key|sig|signature|code|auth)=)[^\s&#\"']+",
    # Who is in a URL: user:password@ or a token@.
    r"(://)(?:[^\s/@:\"'<>]{0,200}:[^\s\"'<>]{1,300}|[^\s/\"'<>]{1,300})@",
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
        text = _COLOUR.sub("", text)
        known = {each for value in values for each in _spellings(value)}
        found = [match.span() for each in known for match in re.finditer(re.escape(each), text)]
        found += [match.span() for pattern in self._whole for match in pattern.finditer(text)]
        found += [(match.end(1), match.end()) for pattern in self._behind_a_name for match in pattern.finditer(text)]
        kept: list[str] = []
        done = 0
        for start, end in sorted(found):
            # What overlaps is one.
            if end > done:
                kept += [text[done:start], REDACTED] if start >= done else []
                done = end
        return "".join((*kept, text[done:]))

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
