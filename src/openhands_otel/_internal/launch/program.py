"""Waits for OpenHands (``site/_openhands_otel_launch.py``) and runs a Python program as the interpreter itself would.

The program runs in the real ``__main__`` (pickling, ``python -i`` and multiprocessing's re-import depend on it), with
the ``sys.argv``, ``sys.orig_argv`` and ``sys.path`` that it expects. What is left: ``ps`` shows the longer command
line, and frames of ours stand below the program's first one, though not in the traceback that is printed.

Loaded by path into any Python 3 (see ``bootstrap.py``), so it imports nothing of this package at its top, and its
syntax is that of old releases.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

OURS = (os.path.abspath(__file__), os.path.join(os.path.dirname(os.path.abspath(__file__)), "bootstrap.py"))


def run(main: "dict[str, Any]", pristine: "dict[str, Any]") -> None:
    """``main`` is the namespace of ``__main__``; ``pristine`` is what Python had put there at first."""
    kind, program = sys.argv[1:3]
    _present(kind, program, sys.argv[4:], int(sys.argv[3]))
    wait()
    main.clear()
    main.update(pristine, __doc__=None)
    try:
        if kind == "script":
            _run_script(main, program)
            return
        main["__loader__"] = sys.__loader__
        if kind == "stdin":
            main["__file__"] = "<stdin>"
            _prepend("")
            exec(compile(sys.stdin.buffer.read(), "<stdin>", "exec"), main)
            return
        for name in ("__file__", "__cached__"):
            main.pop(name, None)
        if kind == "module":
            _prepend(os.getcwd())
            _run_module_as_main(program, True)
        else:
            _prepend("")
            exec(_compiled(program), main)
    except BaseException:
        _hide_our_frames()
        raise


def wait() -> None:
    """Have instrumentation started when OpenHands is imported."""
    site = os.path.join(os.path.dirname(os.path.abspath(__file__)), "site")
    sys.path.insert(0, site)
    try:
        import _openhands_otel_launch  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.remove(site)
        sys.path_importer_cache.pop(site, None)
    _openhands_otel_launch.wait()  # pyright: ignore[reportUnknownMemberType]


def _present(kind: str, program: str, words: "list[str]", behind: int) -> None:
    """Show the command line as it was given: ``words``, of which the last ``behind`` are the program's arguments."""
    first = {"module": "-m", "code": "-c"}.get(kind, program)
    sys.argv[:] = [first, *words[len(words) - behind :]]
    original: list[str] = getattr(sys, "orig_argv", [])
    original[1:] = words


def _compiled(program: str) -> "Any":
    if sys.version_info >= (3, 13):
        # As the interpreter itself does since then, so that tracebacks show the lines of a -c program.
        import linecache

        lines = [line + "\n" for line in program.splitlines()]
        linecache.cache["<string>"] = (len(program), None, lines, "<string>")
    return compile(program, "<string>", "exec")


def _prepend(directory: str) -> None:
    if not (getattr(sys.flags, "safe_path", False) or sys.flags.isolated):
        sys.path.insert(0, directory)


def _run_script(main: "dict[str, Any]", path: str) -> None:
    if _is_importable(path):
        sys.path.insert(0, os.path.join(os.getcwd(), path))
        _run_module_as_main("__main__", False)
        return
    import pkgutil
    from importlib.machinery import SourceFileLoader, SourcelessFileLoader

    full = os.path.join(os.getcwd(), path)
    try:
        source = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        sys.stderr.write(f"{sys.executable}: can't open file {full!r}: [Errno {error.errno}] {error.strerror}\n")
        raise SystemExit(2) from None
    with source:
        code = pkgutil.read_code(source)
        if code is None:
            source.seek(0)
            code = compile(source.read(), full, "exec")
    _prepend(os.path.dirname(os.path.realpath(path)))
    main["__file__"] = full
    loader = SourcelessFileLoader if path.endswith(".pyc") else SourceFileLoader
    main["__loader__"] = loader("__main__", full)
    exec(code, main)


def _run_module_as_main(name: str, alter_argv: bool) -> None:
    # What the interpreter itself calls for -m, for directories and for archives.
    import runpy

    run_module: Callable[[str, bool], Any] = vars(runpy)["_run_module_as_main"]
    run_module(name, alter_argv)


def _is_importable(path: str) -> bool:
    """Whether Python would look for a ``__main__`` in there: a directory or an archive."""
    for hook in sys.path_hooks:
        try:
            hook(path)
        except ImportError:
            continue
        return True
    return False


def _hide_our_frames() -> None:
    shown = sys.excepthook

    def hook(kind: "type[BaseException]", error: BaseException, traceback: "Any") -> None:
        while traceback is not None and traceback.tb_frame.f_code.co_filename in OURS:
            traceback = traceback.tb_next
        sys.excepthook = shown
        shown(kind, error.with_traceback(traceback), traceback)

    sys.excepthook = hook
