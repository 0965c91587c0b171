"""Finds the conversations that OpenHands has left on this machine: folders that hold a ``base_state.json``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

STATE_FILE: Final = "base_state.json"
EVENTS_FOLDER: Final = "events"
SUBAGENTS: Final = "subagents"
DEPTH_LIMIT: Final = 6
"""Folders in a row that are no conversation: an agent server's, in a project's workspace, is the third."""
NESTING_LIMIT: Final = 64
"""Folders in a row at all; each sub-agent of a sub-agent takes two."""
FOLDER_LIMIT: Final = 100_000
_NOT_ENTERED: Final = frozenset({EVENTS_FOLDER, ".git", "node_modules", ".venv", "site-packages", "__pycache__"})

Skip = tuple[Path, str]
"""What was not read, and why."""


@dataclass(frozen=True, slots=True)
class FoundState:
    """A conversation's file; ``parent`` is that of the conversation whose sub-agent it was."""

    path: Path
    parent: Path | None


def default_roots(
    environ: Mapping[str, str] = os.environ, home: Path | None = None, here: Path | None = None
) -> list[Path]:
    """The folders in which OpenHands keeps conversations, as far as they exist: Canvas, command line, agent server."""
    user = _expanded(environ.get("OPENHANDS_PERSISTENCE_DIR"), home) or (home or Path.home()) / ".openhands"
    canvas = (home or Path.home()) / ".openhands" / "agent-canvas"
    roots = [
        canvas / "conversations",
        canvas / "dev_conversations",
        _expanded(environ.get("OPENHANDS_CONVERSATIONS_DIR"), home) or user / "conversations",
        _expanded(environ.get("OH_CONVERSATIONS_PATH"), home) or (here or Path.cwd()) / "workspace" / "conversations",
    ]
    return [root for root in roots if root.is_dir()]


def _expanded(text: str | None, home: Path | None) -> Path | None:
    if not text:
        return None
    if text == "~" or text.startswith("~/"):
        return (home or Path.home()) / text[2:]
    return Path(text)


@dataclass(slots=True)
class Search:
    """One walk through some roots; a folder that is reached twice is entered once."""

    skipped: list[Skip] = field(default_factory=list[Skip])
    _seen: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    _full: bool = False

    def states(self, root: Path) -> Iterator[FoundState]:
        """Every conversation at or below a folder, each before its sub-agents."""
        if root.name == STATE_FILE and not root.is_dir():
            root = root.parent
        yield from self._enter(root, None, 0, 0)

    def _enter(self, folder: Path, parent: Path | None, depth: int, nesting: int) -> Iterator[FoundState]:
        try:
            status = folder.stat()
            key = status.st_dev, status.st_ino
            if key in self._seen:
                return
            if len(self._seen) >= FOLDER_LIMIT:
                self._note_full(folder)
                return
            self._seen.add(key)
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except (OSError, ValueError) as error:
            self.skipped.append((folder, _reason(error)))
            return
        state = next((entry for entry in entries if entry.name == STATE_FILE), None)
        if state is not None:
            yield FoundState(folder / STATE_FILE, parent)
            entries = [entry for entry in entries if entry.name == SUBAGENTS]
            parent, depth = folder / STATE_FILE, 0
        if depth >= DEPTH_LIMIT or nesting >= NESTING_LIMIT:
            return
        for entry in entries:
            if entry.name not in _NOT_ENTERED and _is_to_be_entered(entry):
                yield from self._enter(folder / entry.name, parent, depth + 1, nesting + 1)

    def _note_full(self, folder: Path) -> None:
        if not self._full:
            self._full = True
            self.skipped.append((folder, f"more than {FOLDER_LIMIT:,} folders: name a narrower one"))


def _is_to_be_entered(entry: os.DirEntry[str]) -> bool:
    """Of links only those that lead straight to a conversation: others may lead anywhere."""
    try:
        if entry.is_symlink():
            return Path(entry.path, STATE_FILE).exists()
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or "it cannot be read") if isinstance(error, OSError) else "its name cannot be used"
