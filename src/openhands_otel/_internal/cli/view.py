"""``openhands-otel view``: the embedded collector and its page as a process."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any, Final

from openhands_otel._internal.cli import CommandError
from openhands_otel._internal.collector.receive.connections import allow_many_files
from openhands_otel._internal.collector.receive.lines import few_lines
from openhands_otel._internal.collector.server import Collector, StartError
from openhands_otel._internal.collector.spools import ViewerAddress, take_spools
from openhands_otel._internal.host.named_tokens import tokens_file
from openhands_otel._internal.host.neighbours import tells_owners
from openhands_otel._internal.host.state_folder import history_file
from openhands_otel._internal.money import dollars
from openhands_otel._internal.terminal_text import printable
from openhands_otel.settings import SettingsError, ViewerSettings, load

IN_MEMORY: Final = ":memory:"

_log = few_lines(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command; each overrides a setting (OPENHANDS_OTEL_VIEWER_*)."""
    parser.add_argument("--host", help="address to listen on (127.0.0.1); any other needs a token")
    parser.add_argument("--port", type=int, help="port of OTLP/HTTP, page and API (4318); 0 takes a free one")
    parser.add_argument("--grpc-port", type=int, help="port of OTLP/gRPC (4317); 0 takes a free one")
    parser.add_argument("--also-port", type=int, metavar="PORT", help="a second port like --port, as Canvas wants one")
    parser.add_argument(
        "--database",
        metavar="FILE",
        help=f"SQLite file that keeps the history (one in your state directory); {IN_MEMORY} keeps nothing",
    )
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the bearer token to ask for")
    parser.add_argument(
        "--tokens-file", type=Path, metavar="FILE", help="file of named tokens, as 'openhands-otel token' writes it"
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate (PEM): speak TLS on both ports")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key (PEM)")
    parser.add_argument("--public-url", metavar="URL", help="where a proxy shows it; everybody needs a token then")
    parser.add_argument(
        "--origins", metavar="ORIGIN,...", help="pages elsewhere that may read the API: http://localhost:8000 (Canvas)"
    )
    parser.add_argument("--retention-days", type=float, metavar="DAYS", help="how long history is kept (30)")
    parser.add_argument("--ready-json", action="store_true", help="say where it listens as one line of JSON")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    try:
        settings = _settings(arguments)
        with asyncio.Runner(loop_factory=_loop) as runner:
            runner.run(_serve(settings, arguments.ready_json))
    except (SettingsError, StartError) as error:
        raise CommandError(str(error)) from None
    return 0


def _loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where it is installed (not on Windows): a request costs less with it."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _settings(arguments: argparse.Namespace) -> ViewerSettings:
    settings = load(
        ViewerSettings,
        host=arguments.host,
        port=arguments.port,
        grpc_port=arguments.grpc_port,
        also_port=arguments.also_port,
        database=arguments.database,
        token_file=arguments.token_file,
        tokens_file=arguments.tokens_file,
        tls_cert_file=arguments.tls_cert,
        tls_key_file=arguments.tls_key,
        public_url=arguments.public_url,
        origins=arguments.origins,
        retention_days=arguments.retention_days,
    )
    if settings.tokens_file is None:
        with contextlib.suppress(RuntimeError):
            settings = settings.model_copy(update={"tokens_file": tokens_file()})
    if settings.database == Path(IN_MEMORY):
        return settings.model_copy(update={"database": None})
    if settings.database is None:
        return settings.model_copy(update={"database": default_database()})
    return settings


def default_database() -> Path:
    """Where a user's history is kept: what the XDG base directories call state."""
    try:
        return history_file()
    except RuntimeError:
        raise SettingsError(
            "there is no home directory to keep the history in: set XDG_STATE_HOME or --database"
        ) from None


async def _serve(settings: ViewerSettings, ready_json: bool) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(_: int, __: FrameType | None) -> None:
        # Told once more, it may be past its end already: the loop is closed then.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(stopping.set)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    loop.set_exception_handler(_note)
    # Whatever is written here is this user's alone, until somebody says otherwise.
    os.umask(0o077)
    allow_many_files()
    collector = Collector(settings)
    await collector.start()
    # What was made by now stays: a collection that walks over all of it would hold up an update for milliseconds.
    gc.collect()
    gc.freeze()
    try:
        _announce(collector, ready_json)
        taking = asyncio.create_task(_take_spools(collector, ready_json))
        await stopping.wait()
        taking.cancel()
    finally:
        await collector.stop()


async def _take_spools(collector: Collector, ready_json: bool) -> None:
    """What processes had to tell while nobody was here."""
    address = ViewerAddress(collector.url, collector.grpc_port, collector.secret, collector.settings.tls_cert_file)
    owed = await asyncio.to_thread(take_spools, address)
    if (owed.cost or owed.calls) and not ready_json:
        print(f"Taken in what had waited in the spool: {dollars(owed.cost)} of {owed.calls} calls.", flush=True)


def _note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio would print with a traceback each time, however often it happens."""
    error = context.get("exception")
    cause = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else "no exception"
    _log.error("%s", f"{context.get('message', 'an error')} ({' '.join(cause.split())[:200]})")


def _announce(collector: Collector, ready_json: bool) -> None:
    database = collector.settings.database
    if ready_json:
        ready = {
            "url": collector.url,
            "grpc": collector.grpc_address,
            "database": None if database is None else str(database),
            "pid": os.getpid(),
        }
        if not tells_owners() and collector.login_code:
            ready["login"] = _login(collector)
        print(json.dumps(ready), flush=True)
        return
    kept = "in memory only" if database is None else str(database)
    if not tells_owners() and collector.login_code:
        print(f"The page, once: {_login(collector)}")
    print(printable(f"Live page and OTLP/HTTP: {collector.url}   OTLP/gRPC: {collector.grpc_address}"))
    print(printable(f"History: {kept}. Stop with Ctrl+C."), flush=True)


def _login(collector: Collector) -> str:
    """The address that logs a browser in: where the system does not tell whose it is."""
    return f"{collector.url}/#login={collector.login_code}"
