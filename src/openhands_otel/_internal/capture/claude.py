"""The model that a session of Claude Code uses: its ACP adapter says ``sonnet`` or ``default``, as its menu does.

Claude Code appends each answer with its model to ``$CLAUDE_CONFIG_DIR/projects/FOLDER/SESSION.jsonl``. The name of the
newest one is read there, at the end of a turn, and nothing else of the file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from openhands_otel._internal.capture.agent_program import environment_of, home_in, is_named
from openhands_otel._internal.guard import guarded

BYTES = (64 * 1024, 4 * 1024 * 1024)
"""Of a file that are searched for it, from its end: nearly always a few are enough."""
_MODEL = re.compile(rb'"model":"(claude-[\w.@:-]{1,100})"')


@guarded
def model_of(agent: Any, session_id: str) -> str | None:
    """None if it is another agent, has a full name already, or does not tell."""
    named = str(getattr(agent, "current_model_id", None) or getattr(agent, "acp_model", None) or "")
    is_known = not is_named(agent, "claude") or named.startswith("claude-")
    if is_known or not session_id.replace("-", "").isalnum():
        return None
    path = next(_folder(agent).glob(f"projects/*/{session_id}.jsonl"), None)
    return None if path is None else _newest_model(path)


def _folder(agent: Any) -> Path:
    variables = environment_of(agent)
    folder = variables.get("CLAUDE_CONFIG_DIR")
    return Path(folder) if folder else home_in(variables) / ".claude"


def _newest_model(path: Path) -> str | None:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        for most in BYTES:
            file.seek(max(0, size - most))
            for line in reversed(file.read(most).splitlines()):
                # What was said may quote such a name, but not at the beginning of an answer's line.
                found = _MODEL.search(line) if b'"type":"assistant"' in line else None
                if found is not None:
                    return found[1].decode()
            if size <= most:
                break
    return None
