"""What the demo's agent is asked to do, and what its scripted models answer.

A small but complete piece of work in a shell and a file editor: write a script, see its check fail, mend it. It needs
nothing but a POSIX shell, so it runs wherever the terminal tool does. It is long enough for the condenser to step in.
"""

from __future__ import annotations

from pathlib import Path

from openhands_otel._internal.demo.answers import Answer, call, say

AGENT_SCRIPT = "demo-agent"
AGENT_MODEL = "gpt-5"
CONDENSER_SCRIPT = "demo-condenser"
CONDENSER_MODEL = "gpt-4o-mini"
CONDENSER_MAX_EVENTS = 14
"""With two events a step, the condenser is called once, after the seventh answer."""

TASK = """Write a shell script wordcount.sh that prints how many words a text file has, one check that proves it,
and make the check pass."""

_FIRST_TRY = """#!/bin/sh
# Prints the number of words in a file.
wc -l < "$1" | tr -d ' '
"""
_CHECK = """#!/bin/sh
printf 'one two\\nthree\\n' > sample.txt
got=$(sh wordcount.sh sample.txt)
[ "$got" = 3 ] && echo "ok" || { echo "expected 3 words, got $got"; exit 1; }
"""
_SUMMARY = """USER_CONTEXT: a script wordcount.sh that counts the words of a file, with a check that passes.
COMPLETED: looked around, wrote wordcount.sh and check.sh; the check failed with "expected 3 words, got 2".
PENDING: wordcount.sh counts lines (wc -l); it has to count words. Then run the check again and finish.
"""


def agent_answers(workspace: Path) -> list[Answer]:
    """The agent's answers, with delays and hidden reasoning as a real model has them."""
    script, check = str(workspace / "wordcount.sh"), str(workspace / "check.sh")
    return [
        call("terminal", {"command": "ls -la"}, delay=0.9, reasoning=192),
        call("file_editor", {"command": "create", "path": script, "file_text": _FIRST_TRY}, delay=1.0, reasoning=384),
        call("file_editor", {"command": "create", "path": check, "file_text": _CHECK}, delay=0.8, reasoning=320),
        call("terminal", {"command": "sh check.sh"}, delay=0.5, reasoning=64),
        call("file_editor", {"command": "view", "path": script}, delay=0.6, reasoning=128),
        call("terminal", {"command": "cat sample.txt && wc sample.txt"}, delay=0.7, reasoning=256),
        call(
            "file_editor",
            {"command": "str_replace", "path": script, "old_str": "wc -l", "new_str": "wc -w"},
            delay=0.8,
            reasoning=192,
        ),
        call("terminal", {"command": "sh check.sh"}, delay=0.5, reasoning=64),
        call("terminal", {"command": "rm sample.txt && ls"}, delay=0.4, reasoning=64),
        call("finish", {"message": "wordcount.sh counts words, and check.sh proves it."}, delay=0.7, reasoning=128),
    ]


def condenser_answers() -> list[Answer]:
    """The condenser's summary of what has happened; one more than needed, should a release call it twice."""
    return [say(_SUMMARY, delay=0.8)] * 2


EXPECTED_CALLS = len(agent_answers(Path())) + 1
