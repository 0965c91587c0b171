"""Settings as variables of the environment, to be handed on to a program that starts elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from openhands_otel.settings import SettingsError


def variables_of(kind: type[BaseSettings]) -> dict[str, str]:
    """The variables of ``kind`` that are set in the environment, by name; paths in them are made absolute.

    Raises:
        SettingsError: One of them is a secret, which must not be handed on; the message is one line that names it.
        RuntimeError: A path begins in a home directory, and there is none.
    """
    found: dict[str, str] = {}
    for name, field in kind.model_fields.items():
        variable = f"{kind.model_config.get('env_prefix', '')}{name}".upper()
        value = os.environ.get(variable)
        if value is None:
            continue
        kinds = get_args(field.annotation) or (field.annotation,)
        if SecretStr in kinds:
            raise SettingsError(f"{variable} is a secret, which is not written into another program's folder")
        found[variable] = (
            str(Path(value).expanduser().absolute()) if Path in kinds and value[:1] not in ("", ":") else value
        )
    return found
