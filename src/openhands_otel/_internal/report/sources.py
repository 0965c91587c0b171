"""Where spend is read from: a viewer, its database or a Prometheus, and OpenHands' own files; each dollar once.

A viewer, its database and a Prometheus may hold the same dollars, so one of them is asked at most. They know when an
instrumented process held which conversation; what OpenHands' files say of calls in these times is counted already.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from openhands_otel._internal.asking import endpoints
from openhands_otel._internal.asking.steps import Question, spend_asked
from openhands_otel._internal.host.network import is_this_machine, without_secrets
from openhands_otel._internal.host.plain_http import NoAnswer, get
from openhands_otel._internal.openhands_files.finding import Skip, default_roots
from openhands_otel._internal.openhands_files.reading import PresenceById, presence_of, read
from openhands_otel._internal.report.errors import SourceError
from openhands_otel._internal.spend.grouping import merge
from openhands_otel._internal.spend.questions import SpendQuestion
from openhands_otel._internal.spend.reading import BadQuestion
from openhands_otel._internal.spend.rows import Described
from openhands_otel._internal.spend.zones import MACHINE
from openhands_otel._internal.terminal_text import printable
from openhands_otel.semconv import RunOutcome
from openhands_otel.stats import Presence, Spend

_KNOCK_S: Final = 0.3
_PATIENCE_S: Final = 60.0
_HTTPX: Final = "the package 'httpx' is missing: pip install 'openhands-otel[viewer]'"
_OUTCOMES: Final = frozenset(RunOutcome)
"""What OpenHands calls a conversation's status is how its last run ended, where that is one of these words."""


@dataclass(slots=True)
class Sources:
    """What is asked. Where nothing is named: this machine's viewer, else its database, and what OpenHands left here."""

    viewer: str | None = None
    database: Path | None = None
    prometheus: str | None = None
    files: Sequence[Path] = ()
    """Of metrics, or folders with some."""
    folders: Sequence[Path] = ()
    token: str | None = None
    machine_viewer: str = ""
    """Where this machine's own viewer would be."""
    machine_database: Path | None = None
    """Where it keeps what it knows."""
    skipped: list[Skip] = field(default_factory=list[Skip])
    """Filled by asking: which files could not be read, and why."""

    def answer(self, question: SpendQuestion) -> Spend:
        """What all of them together say. Raises SourceError."""
        self._check()
        if self.prometheus is not None:
            return _ask_prometheus(self.prometheus, self.token, question)
        named = bool(self.viewer or self.database or self.files or self.folders)
        folders = list(self.folders) if named else _own_folders()
        counted, held, remarks = self._counted(question.whole(), named, bool(folders))
        answers = [] if counted is None else [counted]
        if folders or counted is None:
            answers.append(self._read(folders, held, question.whole()))
        spend = merge(answers, question.zone, question.top)
        if self.skipped:
            remarks.append(f"What could not be read, or not wholly: {len(self.skipped):,} (--verbose names each)")
        return spend.model_copy(update={"remarks": (*spend.remarks, *remarks)})

    def _ask_files(self, question: SpendQuestion) -> tuple[Spend, PresenceById]:
        try:
            from openhands_otel._internal.report.files_source import ask_files
        except ModuleNotFoundError as error:
            raise SourceError(f"--files needs '{error.name}': pip install 'openhands-otel[viewer]'") from None
        spend, present, skipped = ask_files(self.files, question)
        self.skipped += skipped
        return spend, presence_of((name, since, until) for name, _, since, until in present)

    def _check(self) -> None:
        given = [
            option
            for option, value in (
                ("--viewer", self.viewer),
                ("--database", self.database),
                ("--prometheus", self.prometheus),
                ("--files", self.files or None),
            )
            if value is not None
        ]
        if len(given) > 1:
            raise SourceError(f"{given[0]} and {given[1]} may hold the same dollars: name one of them")
        if self.prometheus is not None and self.folders:
            raise SourceError("a Prometheus cannot tell what of OpenHands' files it has counted: leave out --openhands")
        for paths, meant in (
            (self.folders, "a folder in which OpenHands keeps conversations"),
            (self.files, "files of metrics, or a folder with some"),
        ):
            missing = next((path for path in paths if not path.exists()), None)
            if missing is not None:
                raise SourceError(f"{missing} does not exist: name {meant}")

    def _counted(
        self, question: SpendQuestion, named: bool, wants_presence: bool
    ) -> tuple[Spend | None, PresenceById, list[str]]:
        """What was counted, who held which conversation when if that is wanted, and what is to be said of it."""
        if self.viewer is not None:
            return *_ask_viewer(self.viewer, self.token, question, wants_presence), []
        if self.database is not None:
            return *_ask_database(self.database, question, wants_presence), []
        if self.files:
            return *self._ask_files(question), []
        if named:
            return None, {}, []
        remarks: list[str] = []
        if _somebody_listens(self.machine_viewer):
            try:
                return *_ask_viewer(self.machine_viewer, self.token, question, wants_presence), remarks
            except SourceError as error:
                remarks.append(f"this machine's viewer is left out: {error}")
        if self.machine_database is not None and self.machine_database.exists():
            try:
                return *_ask_database(self.machine_database, question, wants_presence), remarks
            except SourceError as error:
                remarks.append(f"this machine's history is left out: {error}")
        return None, {}, remarks

    def _read(self, folders: Sequence[Path], held: PresenceById, question: SpendQuestion) -> Spend:
        reading = read(folders, presence=held, since=question.since, until=question.until)
        self.skipped += reading.skipped
        described = {
            name: Described(conversation.status)
            for name, conversation in reading.conversations.items()
            if conversation.status is not None and conversation.status in _OUTCOMES
        }
        return question.answered_by(reading.rows, described)


def _own_folders() -> list[Path]:
    try:
        return default_roots()
    except (RuntimeError, OSError):
        # There is no home, or the folder that this process stands in is gone.
        return []


def _somebody_listens(url: str) -> bool:
    """Whether it is worth while to load what talks to a viewer, which takes longer than the rest."""
    parts = urlsplit(url)
    if not parts.hostname:
        return False
    try:
        socket.create_connection((parts.hostname, parts.port or 80), _KNOCK_S).close()
    except OSError:
        return False
    return True


def _ask_viewer(
    url: str, token: str | None, question: SpendQuestion, wants_presence: bool
) -> tuple[Spend, PresenceById]:
    # A zone without a name has none that could be told; the viewer of this machine has the same.
    asked = _asked(question, None if question.zone.key == MACHINE else question.zone.key)
    spend, present = _ask_plainly(url, token, asked, wants_presence) or _ask_by_client(
        url, token, asked, wants_presence
    )
    if spend.timezone != question.zone.key:
        here = printable(without_secrets(url).rstrip("/"), 200)
        there = f"counts days of {printable(spend.timezone, 40)}, not of {question.zone.key}"
        raise SourceError(f"{here} {there}: name one with --timezone")
    return spend, presence_of((each.conversation_id, each.since, each.until) for each in present)


def _asked(question: SpendQuestion, timezone: str | None) -> dict[str, Any]:
    """A question in the words of ``StatsClient.spend``."""
    where = [str(each) for each in question.where]
    return {"by": question.by, "since": question.since, "until": question.until, "timezone": timezone, "where": where}


def _ask_plainly(
    url: str, token: str | None, asked: dict[str, Any], wants_presence: bool
) -> tuple[Spend, Sequence[Presence]] | None:
    """Of a viewer on this machine, without loading a client, which takes longer than the answer.

    None where that is not as simple: then the client is to ask, and knows in words what is wrong.
    """
    try:
        parts = urlsplit(url.strip())
        if parts.scheme != "http" or parts.username is not None or not is_this_machine(parts.hostname or ""):
            return None
        spend = _plainly(url, token, Question(endpoints.SPEND, spend_asked(**asked, top=None)))
        return spend, _plainly(url, token, Question(endpoints.PRESENCE)) if wants_presence else ()
    except (NoAnswer, ValueError):
        return None


def _plainly[T](url: str, token: str | None, question: Question[T]) -> T:
    query = urlencode(question.query, doseq=True)
    code, body = get(url.strip(), f"{question.endpoint.path}?{query}", token, _PATIENCE_S)
    if code != 200:
        raise NoAnswer(str(code))
    return question.endpoint.reader.validate_json(body)


def _ask_by_client(
    url: str, token: str | None, asked: dict[str, Any], wants_presence: bool
) -> tuple[Spend, Sequence[Presence]]:
    try:
        from openhands_otel.client import StatsClient, StatsError
    except ModuleNotFoundError:
        raise SourceError(_HTTPX) from None
    try:
        with StatsClient(url, token, timeout_s=_PATIENCE_S) as client:
            return client.spend(**asked), client.presence() if wants_presence else ()
    except StatsError as error:
        raise SourceError(str(error)) from None


def _ask_prometheus(url: str, token: str | None, question: SpendQuestion) -> Spend:
    try:
        from openhands_otel.client import PROMETHEUS, StatsClient, StatsError
    except ModuleNotFoundError:
        raise SourceError(_HTTPX) from None
    try:
        with StatsClient(f"{PROMETHEUS}{url}", token, timeout_s=_PATIENCE_S) as client:
            # It is asked from here, so this machine's zone is known whatever it is called.
            return client.spend(**_asked(question, question.zone.key), top=question.top)
    except StatsError as error:
        raise SourceError(str(error)) from None


def _ask_database(path: Path, question: SpendQuestion, wants_presence: bool) -> tuple[Spend, PresenceById]:
    from openhands_otel._internal.collector.archive import questions
    from openhands_otel._internal.collector.archive.schema import UnusableDatabase

    try:
        spend = questions.answer_from_file(path, question)
        present = questions.presence_from_file(path) if wants_presence else []
    except (BadQuestion, UnusableDatabase) as error:
        raise SourceError(str(error)) from None
    return spend, presence_of((name, since, until) for name, _, since, until in present)


def described(skipped: Sequence[Skip]) -> list[str]:
    """What could not be read, a line each."""
    return [f"{path}: {reason}" for path, reason in skipped]
