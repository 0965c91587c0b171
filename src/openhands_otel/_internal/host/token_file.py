"""A bearer token kept in a file, where no process list, shell history or environment shows it.

The one reader of such files: it is asked anew for each request, so that a file can come late and be replaced. A token
is never part of a message.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

TOKEN_FILE_LIMIT: Final = 65_536
"""Bytes of a token file; what is longer is another file."""


class TokenError(ValueError):
    """A token that cannot be shown to anybody; the message is one line without it."""


class TokenFileError(TokenError):
    """There is no token in the file; the message is one line that names it."""


def read_token(path: Path, variable: str | None = None) -> str:
    """The one word in a file; ``variable`` named it, if one did."""
    name = f"the token file {path}" + (f" ({variable})" if variable else "")
    try:
        with path.open("rb") as file:
            content = file.read(TOKEN_FILE_LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it has no usable name"
        raise TokenFileError(f"{name} cannot be read: {reason}") from None
    # Some editors begin a file with a mark of its encoding.
    given = content.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    problem = (
        _problem(given.strip()) if len(content) <= TOKEN_FILE_LIMIT else f"it has more than {TOKEN_FILE_LIMIT:,} bytes"
    )
    if problem is not None:
        raise TokenFileError(f"{name} must hold one word of printable ASCII characters: {problem}")
    return given.strip()


def checked_token(token: str) -> str:
    """A token that was given in code, without the white space around it."""
    problem = _problem(token.strip())
    if problem is not None:
        raise TokenError(f"the token must be one word of printable ASCII characters: {problem}")
    return token.strip()


def _problem(token: str) -> str | None:
    if not token:
        return "it is empty"
    if "\n" in token or "\r" in token:
        return "it has several lines"
    if any(character.isspace() for character in token):
        return "it has several words"
    if not (token.isascii() and token.isprintable()):
        return "it has other characters"
    return None
