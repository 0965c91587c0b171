"""A bearer token kept in a file, where no process list, shell history or environment shows it."""

from __future__ import annotations

from pathlib import Path


class TokenFileError(ValueError):
    """There is no token in the file; the message is one line."""


def read_token(path: Path) -> str:
    """The one word in a file."""
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenFileError(f"the token file {path} cannot be read: {error}") from None
    if not token or not token.isascii() or any(character.isspace() for character in token):
        raise TokenFileError(f"the token file {path} must hold one word of ASCII characters")
    return token
