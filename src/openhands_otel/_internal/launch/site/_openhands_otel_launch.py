"""All that a Python under ``openhands-otel run`` loads of this package until it imports ``openhands.sdk``.

``wait`` puts a finder on ``sys.meta_path`` that starts instrumentation when an import of that package really begins,
before its first line runs; whoever only looks for it (``find_spec``) starts nothing. It also sees to it that the
Pythons which this one starts by ``subprocess`` or ``multiprocessing`` wait as well, where PYTHONPATH alone is not
enough. Instrumentors of other libraries wait too, and patch what is imported by then.

Where this file is part of a bundle (``launch/bundle.py``), that has what an environment may lack.

It runs in any Python from 3.6 on, whatever is installed there, and imports nothing that such a Python has not loaded.
"""

import os
import sys
from _thread import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType
    from typing import Any

PACKAGE = "openhands.sdk"
FROZEN = getattr(sys, "frozen", False)
"""Whether PyInstaller has made one file of this program: it has only a part of the packages that it names."""
RUNS_OPENHANDS = sys.version_info >= (3, 12)
REQUIREMENT = "openhands-sdk >= 1.0.0"
COMMAND = "_OPENHANDS_OTEL_COMMAND"
"""Which process is the command that ``run`` was given: it is told on standard error what it lacks, its children not."""
MARKER = "_OPENHANDS_OTEL_FOOTPRINT"
EMPTY_FOOTPRINT = '{"variables": {}, "directory": null}'
MANIFEST = "openhands-otel-bundle.json"
OWN = "openhands_otel"

LAUNCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUNDLE = os.path.abspath(os.path.join(LAUNCH, "..", "..", "..", "..", ".."))
BUNDLED = os.path.isfile(os.path.join(BUNDLE, MANIFEST))
SITE = os.path.join(BUNDLE if BUNDLED else LAUNCH, "site")
"""What PYTHONPATH names."""


def wait() -> None:
    """Start instrumentation once OpenHands is imported, here and in the Pythons that this one starts."""
    if RUNS_OPENHANDS and not any(type(finder).__name__ == Waiting.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, Waiting())  # pyright: ignore[reportArgumentType]
        if BUNDLED:
            sys.meta_path.append(Bundled(os.path.join(BUNDLE, "lib")))  # pyright: ignore[reportArgumentType]
        if MARKER not in os.environ and SITE in os.environ.get("PYTHONPATH", "").split(os.pathsep):
            # Not by ``run``: somebody has named the bundle there.
            os.environ[MARKER] = EMPTY_FOOTPRINT
        _follow()
    if os.environ.get(COMMAND) == str(os.getppid() if os.name == "nt" else os.getpid()):
        # A server that executes itself anew has said it.
        del os.environ[COMMAND]
        _complain()


class Waiting:
    """First on ``sys.meta_path`` until the package is imported."""

    def __init__(self) -> None:
        self._begun = False
        self._asking: set[int] = set()
        """Threads that look for the package: other finders ask all the others too."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """What the finders behind this one find, with a loader that tells when it is asked for the module."""
        if name == PACKAGE:
            thread = get_ident()
            if thread in self._asking:
                return None
            self._asking.add(thread)
            try:
                spec = _found(name, path, target, after=self)
            finally:
                self._asking.discard(thread)
            if spec is not None:
                self._watch(spec, path)
            return spec
        if PACKAGE in sys.modules:
            # Somebody in front of this finder has found the package for himself: its first lines are running.
            self._begin()
        return None

    def _watch(self, spec: "ModuleSpec", path: "Sequence[str] | None") -> None:
        loader: Any = spec.loader
        kind: Any = loader.__class__

        def create_module(wanted: "ModuleSpec") -> "ModuleType | None":
            if wanted.name != PACKAGE:
                # An archive has one loader for all that is in it.
                return kind.create_module(loader, wanted)
            loader.__dict__.pop("create_module", None)
            self._begin()
            # Hooks that were registered by now wait for this very import, through finders of their own.
            found = _found(PACKAGE, path, None, after=None)
            if found is not None and found.loader is not None:
                wanted.loader = found.loader
            chosen: Any = wanted.loader
            return chosen.create_module(wanted)

        try:
            loader.create_module = create_module
        except AttributeError:
            self._begin()

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        if self in sys.meta_path:
            sys.meta_path.remove(self)  # pyright: ignore[reportArgumentType]
        try:
            import openhands_otel  # noqa: F401  # pyright: ignore[reportUnusedImport]

            served = [folder for finder in sys.meta_path if isinstance(finder, Bundled) for folder in finder.folders]
            if served:
                from openhands_otel._internal.launch.fitting import check

                check(served)
            from openhands_otel._internal.process.start import start

            start()
        except Exception as error:
            reason = " ".join(str(error).split())
            cure = "start it from its source: docs/launching.md" if FROZEN else "install openhands-otel there"
            _say(f"runs OpenHands without telemetry: {type(error).__name__}: {reason} ({cure})")
            _withdraw()


class Bundled:
    """Last on ``sys.meta_path``: serves what this environment lacks, once it asks for ``openhands_otel``.

    An entry of ``sys.path`` would do the same, but the program would see it, and hand it to the Pythons that it starts.
    """

    def __init__(self, lib: str) -> None:
        self._lib = lib
        self.folders: list[str] = []
        """One for each distribution."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """What is found in the folders that are served."""
        if name == OWN and not self.folders:
            self._serve()
        if not self.folders:
            return None
        from importlib.machinery import PathFinder

        parents = name.split(".")[:-1]
        return PathFinder.find_spec(name, [os.path.join(folder, *parents) for folder in self.folders], target)

    def find_distributions(self, context: "Any" = None) -> "Iterator[Any]":
        """What ``importlib.metadata`` asks for, whose backport has classes of its own."""
        metadata: Any = sys.modules.get("importlib_metadata") or sys.modules["importlib.metadata"]
        name = getattr(context, "name", None)
        asked = metadata.DistributionFinder.Context(name=name, path=list(self.folders))
        return metadata.MetadataPathFinder.find_distributions(asked)

    def _serve(self) -> None:
        from importlib import metadata

        lacking: list[str] = []
        for name in sorted(os.listdir(self._lib)):
            folder = os.path.join(self._lib, name)
            try:
                there = metadata.version(name)
            except metadata.PackageNotFoundError:
                lacking.append(folder)
            else:
                # What was left out of a frozen package is served if it is of the same release.
                if FROZEN and there in [own.version for own in metadata.distributions(path=[folder])]:
                    lacking.append(folder)
        self.folders = lacking
        # OpenTelemetry remembers the entry points that there were.
        remembers: Any = sys.modules.get("opentelemetry.util._importlib_metadata")
        forget: Any = getattr(getattr(remembers, "_original_entry_points_cached", None), "cache_clear", None)
        if forget is not None:
            forget()


def _found(name: str, path: "Sequence[str] | None", target: "ModuleType | None", after: "Any") -> "ModuleSpec | None":
    finders: list[Any] = list(sys.meta_path)
    for finder in finders[finders.index(after) + 1 if after in finders else 0 :]:
        find: Any = getattr(finder, "find_spec", None)
        spec = find(name, path, target) if find is not None and finder is not after else None
        if spec is not None:
            return spec
    return None


def load(file: str, name: str) -> "dict[str, Any]":
    """The names of a file of ours, whatever is installed here; it is no module of the program's."""
    module: ModuleType = type(sys)(name)
    module.__file__ = os.path.join(LAUNCH, file)
    sys.modules[name] = module
    try:
        with open(module.__file__, encoding="utf-8") as source:
            code: CodeType = compile(source.read(), module.__file__, "exec")
        exec(code, module.__dict__)
    finally:
        del sys.modules[name]
    return module.__dict__


def _withdraw() -> None:
    """Nothing is measured here, and nobody takes us out of what the agent's tools see: so it is done at once."""
    try:
        load("footprint.py", "_openhands_otel_footprint")["withdraw"]()
    except Exception as error:
        _say(f"keeps what openhands-otel run has put into its environment: {type(error).__name__}")


def _follow() -> None:
    """Give to the Pythons that ``subprocess`` and multiprocessing start what the environment alone would not."""
    try:
        import _posixsubprocess as starts
    except ImportError:
        return
    spawn: Callable[..., int] = os.posix_spawn
    start: Callable[..., int] = starts.fork_exec

    def posix_spawn(path: "Any", argv: "Any", env: "Any", /, *args: "Any", **kwargs: "Any") -> int:
        argv, carried = _carried(argv, env)
        return spawn(path, argv, env if carried is None else carried, *args, **kwargs)

    def fork_exec(args: "Any", files: "Any", close: "Any", fds: "Any", cwd: "Any", env: "Any", *rest: "Any") -> int:
        args, carried = _carried(args, None if env is None else dict(pair.split(b"=", 1) for pair in env))
        if carried is not None:
            env = [name + b"=" + value for name, value in carried.items()]
        return start(args, files, close, fds, cwd, env, *rest)

    executes: Callable[..., Any] = os.execv
    executes_with: Callable[..., Any] = os.execve

    def execv(path: "Any", argv: "Any", /) -> "Any":
        argv, carried = _carried(argv, None, path)
        return executes(path, argv) if carried is None else executes_with(path, argv, carried)

    def execve(path: "Any", argv: "Any", env: "Any") -> "Any":
        argv, carried = _carried(argv, env, path)
        return executes_with(path, argv, env if carried is None else carried)

    os.execv = execv
    os.execve = execve
    os.posix_spawn = posix_spawn
    starts.fork_exec = fork_exec
    if "subprocess" in sys.modules:
        vars(sys.modules["subprocess"])["_fork_exec"] = fork_exec


def _carried(args: "Any", env: "Any", file: "Any" = None) -> "tuple[Any, dict[bytes, bytes] | None]":
    """(command line, environment) to start instead; no environment where it can stay. ``file``: what is executed."""
    try:
        env = os.environ if env is None else env
        given = {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
        if MARKER.encode() not in given:
            # A tool's, or one that its starter has put together without what it inherited.
            _mention(args)
            return args, None
        separator, site, path = os.fsencode(os.pathsep), os.fsencode(SITE), given.get(b"PYTHONPATH", b"")
        entries = path.split(separator)
        # Another's ``sitecustomize`` in front of ours would hide it; ours lets that one run.
        hidden = entries[0] != site
        if hidden:
            given[b"PYTHONPATH"] = separator.join(
                [site, *(entry for entry in entries if entry != site)] if path else [site]
            )
        return _with_bootstrap(args, file), given if hidden else None
    except Exception:
        # What is wrong with them, the original says in its own words.
        return args, None


def _mention(args: "Sequence[str | bytes]") -> None:
    """Say once that a child is not followed: whoever gave it an environment of its own may have meant that."""
    if _mentioned or os.fsdecode(args[0]) != sys.executable:
        # Of another program, and of a Python that may not have OpenHands, nothing is expected.
        return
    agents: Any = sys.modules.get("openhands_otel._internal.launch.agent_side")
    if agents is None or not agents.is_for_agent():
        _mentioned.append(True)
        _say("starts another one with an environment of its own, which is not measured (add os.environ to its env)")


_mentioned: "list[bool]" = []


def _with_bootstrap(args: "Sequence[str | bytes]", file: "Any") -> "Any":
    """A Python that does not look at the environment (``-I``, ``-E``, ``-S``) gets the bootstrap before its program."""
    words = [os.fsdecode(word) for word in args]
    if not _may_be_isolated(words):
        return args
    executed = words[0] if file is None else os.fsdecode(file)
    commands = load("command.py", "_openhands_otel_command")
    python = commands["read_python"](executed, words)
    if python is None or python.interpreter != executed or not python.passes_sitecustomize:
        return args
    return commands["with_bootstrap"](python)


def _may_be_isolated(words: "Sequence[str]") -> bool:
    for word in words[1:]:
        if not word.startswith("-"):
            return False
        if "I" in word or "E" in word or "S" in word:
            return True
    return False


def _complain() -> None:
    """One line where nothing can come of it."""
    if not RUNS_OPENHANDS:
        _say("runs without telemetry: OpenHands needs Python 3.12 or newer")
    elif not BUNDLED and _found(OWN, None, None, after=None) is None:
        _say("runs without telemetry: No module named 'openhands_otel' (install openhands-otel there)")
    elif not _has_openhands():
        _say(
            f"runs without telemetry: it does not have {REQUIREMENT}, so there is nothing to measure "
            "(install it there, or run another Python)"
        )


def _has_openhands() -> bool:
    for directory in sys.path:
        try:
            names = os.listdir(directory or os.curdir)
        except OSError:
            continue
        for name in names:
            package, _, version = name.partition("-")
            if package.lower().replace(".", "_") == "openhands_sdk" and version.endswith("-info"):
                return not version.startswith("0.")
    # In an archive, say; asking properly costs 20 ms.
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    try:
        return not version_of("openhands-sdk").startswith("0.")
    except PackageNotFoundError:
        return False


def _say(what: str) -> None:
    try:
        sys.stderr.write(f"openhands-otel: {sys.executable} {what}\n")
    except (AttributeError, OSError, ValueError):
        # There is none, or it is closed.
        return
