"""Follows a viewer's stream on a thread of its own, and knows the newest stats of each conversation in it."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from opentelemetry.instrumentation.utils import suppress_instrumentation

from openhands_otel._internal.guard import note_error
from openhands_otel._internal.host.token_file import TokenFileError, read_token
from openhands_otel._internal.log import logger
from openhands_otel.client import StatsClient, StatsError
from openhands_otel.stats import ConversationStats, ConversationUpdate, RemovedUpdate, SnapshotUpdate, Update

_PAUSE_S: Final = 2.0


class Follower:
    """Begins with the first question, in a forked child anew; nobody waits for it."""

    def __init__(self, url: str, token_file: Path | None) -> None:
        self._url = url
        self._token_file = token_file
        self._process = 0
        self._followed: dict[int, object] = {}
        """Who began to follow, by process."""
        self._stopping = threading.Event()
        self._client: StatsClient | None = None
        self._complained = False
        self._known: dict[str, ConversationStats] = {}

    def newest(self, conversation_id: str) -> ConversationStats | None:
        """What was heard last of a conversation."""
        process = os.getpid()
        if self._followed.setdefault(process, me := object()) is me:
            # Nobody else has begun in this process.
            self._process, self._stopping = process, threading.Event()
            # Refused when Python has begun to end: what was heard last is what there is.
            with suppress(RuntimeError):
                threading.Thread(target=self._follow, name="openhands-otel-remote-stats", daemon=True).start()
        return self._known.get(conversation_id)

    def stop(self) -> None:
        """Follow no longer."""
        self._stopping.set()
        if self._client is not None and self._process == os.getpid():
            self._client.close()

    def _follow(self) -> None:
        stopping = self._stopping
        with suppress_instrumentation():
            while not stopping.is_set():
                try:
                    token = None if self._token_file is None else read_token(self._token_file)
                    with StatsClient(self._url, token) as self._client:
                        for update in self._client.stream(reconnect=False):
                            if stopping.is_set():
                                return
                            self._take(update)
                except (StatsError, TokenFileError) as error:
                    self._complain(error)
                except BaseException as error:
                    # It is our thread: nothing ends it but ``stop``, which may close what is being read.
                    if not stopping.is_set():
                        note_error("Follower", error)
                stopping.wait(_PAUSE_S)

    def _take(self, update: Update) -> None:
        self._complained = False
        match update:
            case SnapshotUpdate(state=state):
                self._known = {stats.conversation_id: stats for stats in state.conversations}
            case ConversationUpdate(conversation=stats):
                self._known[stats.conversation_id] = stats
            case RemovedUpdate(conversation_id=conversation_id):
                self._known.pop(conversation_id, None)
            case _:
                pass

    def _complain(self, error: Exception) -> None:
        if not self._complained and not self._stopping.is_set():
            self._complained = True
            logger.warning("the stats of remote conversations are the agent server's own for now: %s", error)
