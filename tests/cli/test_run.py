"""``openhands-otel run`` next to the same command without it: real processes, compared byte for byte."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zipapp
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from forked import Prepared
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel._internal.launch.footprint import MARKER
from trace_receiver import http_trace_receiver

REPORT = """
import os, sys
print(__name__, __doc__, __spec__ and __spec__.name, type(__loader__).__name__, globals().get("__file__"))
print(sorted(globals()))
print(sys.argv, sys.orig_argv)
print(sys.path, sys.flags, sys.warnoptions, sys._xoptions, sys.executable, sys.stdin.isatty())
"""
STARTED = """
import sys
def started():
    return "opentelemetry.instrumentation.auto_instrumentation" in sys.modules
sys.path.insert(0, "stub")
before = started()
import openhands.sdk
print(before, openhands.sdk.started, openhands.sdk.__loader__.__class__.__name__)
"""
Result = tuple[int, str, str]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with the report as script, module, package, archive, link and bytecode."""
    (tmp_path / "report.py").write_text(REPORT)
    (tmp_path / "raises.py").write_text("def f():\n    1 / 0\n\nf()\n")
    (tmp_path / "broken.py").write_text("x = 1\ny = = 2\n")
    (tmp_path / "link.py").symlink_to(tmp_path / "report.py")
    package = tmp_path / "package"
    package.mkdir()
    (package / "__main__.py").write_text(REPORT)
    (package / "__init__.py").write_text("")
    zipapp.create_archive(package, tmp_path / "archive.pyz")
    subprocess.run(
        [sys.executable, "-c", "import py_compile; py_compile.compile('report.py', 'report.pyc')"],
        cwd=tmp_path,
        check=True,
    )
    tool = tmp_path / "bin" / "report-tool"
    tool.parent.mkdir()
    tool.write_text(f"#!{sys.executable} -I\n{REPORT}")
    tool.chmod(0o755)
    stub = tmp_path / "stub" / "openhands" / "sdk"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text(
        "import sys\nstarted = 'opentelemetry.instrumentation.auto_instrumentation' in sys.modules\n"
    )
    return tmp_path


def environment(**variables: str) -> dict[str, str]:
    """The machinery runs whole, but no instrumentor and no exporter add their own delays and words."""
    quiet = {"OTEL_METRICS_EXPORTER": "none", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*"}
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**inherited, **quiet, **variables}


def execute(words: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None, stdin: str = "") -> Result:
    done = subprocess.run(
        words, cwd=cwd, env=env or environment(), input=stdin, capture_output=True, text=True, timeout=100, check=False
    )
    return done.returncode, done.stdout, done.stderr


def under_run(words: Sequence[str], *options: str) -> list[str]:
    command = Path(sys.executable).with_name("openhands-otel")
    return [str(command), "run", *options, "--", *words]


@pytest.mark.parametrize(
    "arguments",
    [
        ["report.py", "one", "--two"],
        ["./link.py"],
        ["report.pyc"],
        ["package", "x"],
        ["archive.pyz", "x"],
        ["-m", "report", "x"],
        ["-um", "package"],
        ["-c", REPORT, "x", "-c"],
        ["-Ic", REPORT],
        ["-E", "-P", "report.py"],
        ["-I", "report.py"],
        ["-OO", "-X", "utf8", "-Wignore::UserWarning", "-X", "faulthandler", "report.py"],
        ["-c", "def f():\n    1 / 0\n\nf()"],
        ["-c", "raise SystemExit('bye')"],
        ["-c", "import sys; sys.exit(7)"],
        ["-c", "import os; os._exit(9)"],
        ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"],
        ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGINT)"],
        ["raises.py"],
        ["broken.py"],
        ["-m", "raises"],
        ["-m", "nowhere"],
        ["missing.py"],
        ["--version"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_a_python_program_runs_exactly_as_without_it(home: Path, arguments: list[str]) -> None:
    command = [sys.executable, *arguments]

    assert execute(under_run(command), home) == execute(command, home)


@pytest.mark.parametrize("arguments", [["-"], []], ids=["dash", "nothing"])
def test_a_program_on_standard_input_runs_exactly_as_without_it(home: Path, arguments: list[str]) -> None:
    command = [sys.executable, *arguments]

    assert execute(under_run(command), home, stdin=REPORT) == execute(command, home, stdin=REPORT)


def test_the_program_reads_its_standard_input(home: Path) -> None:
    command = [sys.executable, "-c", "print(input() + '!')"]

    assert execute(under_run(command), home, stdin="hello") == (0, "hello!\n", "")


def test_a_command_that_is_a_python_script_runs_exactly_as_without_it(home: Path) -> None:
    env = environment(PATH=f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")

    assert execute(under_run(["report-tool", "x"]), home, env) == execute(
        [str(home / "bin" / "report-tool"), "x"], home, env
    )


@pytest.mark.parametrize(
    "flags", [["-c"], ["-I", "-c"], ["-E", "-c"], ["-uc"]], ids=["plain", "isolated", "no environment", "joined"]
)
def test_the_program_is_instrumented_whatever_the_options(home: Path, flags: list[str]) -> None:
    assert execute(under_run([sys.executable, *flags, STARTED]), home) == (0, "False True SourceFileLoader\n", "")


WAITING = "import sys; print([type(finder).__name__ for finder in sys.meta_path].count('Waiting'))"


def test_a_shell_scripts_pythons_wait_for_openhands_and_find_the_path_that_they_would_find(home: Path) -> None:
    shown = f"{WAITING}; print([entry for entry in sys.path if 'launch' in entry])"
    command = ["sh", "-c", f'"{sys.executable}" -c "$0"; "{sys.executable}" -Sc "{WAITING}"', shown]

    assert execute(under_run(command), home) == (0, "1\n[]\n0\n", "")


def test_a_shell_scripts_own_python_path_and_sitecustomize_stay(home: Path) -> None:
    (home / "own").mkdir()
    (home / "own" / "sitecustomize.py").write_text("import builtins; builtins.own_sitecustomize = __file__\n")
    shown = "import sitecustomize; print(sitecustomize.__file__ == own_sitecustomize)"
    command = ["sh", "-c", f'"{sys.executable}" -c "$0"; true', shown]
    env = environment(PYTHONPATH=str(home / "own"))

    assert execute(under_run(command), home, env) == (0, "True\n", "")


def test_an_error_in_the_users_sitecustomize_is_reported_as_without_us(home: Path) -> None:
    (home / "own").mkdir()
    (home / "own" / "sitecustomize.py").write_text("import nowhere\n")
    env = environment(PYTHONPATH=str(home / "own"))
    command = [sys.executable, "-c", "print('ran')"]

    _, _, once = execute(command, home, env)
    # The command ``openhands-otel`` is a Python too.
    assert execute(under_run(command), home, env) == (0, "ran\n", once * 2)


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8", "3.11"])
def test_an_older_python_below_the_command_runs_as_without_us_and_says_nothing(home: Path, version: str) -> None:
    installed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    found = str(installed[-1]) if installed else shutil.which(f"python{version}")
    if found is None:
        pytest.skip(f"no Python {version} on this machine")
    command = ["sh", "-c", f"{found} -c 'import sys; print(sys.path, sys.argv)'; true"]

    assert execute(under_run(command), home) == execute(command, home)


@pytest.mark.parametrize("path", [None, "", "a", "a::b:", ":"])
def test_what_run_adds_can_be_taken_out_to_the_byte(home: Path, path: str | None) -> None:
    """Also by a ``run`` below a ``run``, which is somebody's script that calls another one's."""
    env = environment() if path is None else environment(PYTHONPATH=path)
    clean = (
        "import json, os, sys; sys.path.insert(0, sys.argv[1]); from openhands_otel._internal.launch import footprint;"
        "footprint.withdraw(); print(json.dumps(sorted(os.environ.items())))"
    )
    command = [sys.executable, "-c", clean, str(Path(__file__).parents[2] / "src")]

    in_a_shell = ["sh", "-c", 'exec "$0" "$@"']

    assert execute(under_run(command), home, env) == execute(command, home, env)
    again = execute(under_run([*in_a_shell, *under_run(command, "--service-name", "s")]), home, env)
    assert again == execute([*in_a_shell, *command], home, env)


@pytest.mark.parametrize("options", [[], ["-I"]], ids=["plain", "isolated"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_worker_processes_wait_for_openhands(home: Path, method: str, options: list[str]) -> None:
    (home / "pool.py").write_text(
        "import multiprocessing, os, sys\n"
        "class Result:\n    pass\n"
        "def work(depth):\n"
        "    seen = 'Waiting' in [type(finder).__name__ for finder in sys.meta_path]\n"
        "    if depth:\n"
        "        with context().Pool(1) as pool:\n"
        "            return (seen, *pool.map(work, [depth - 1])[0])\n"
        "    return seen, Result().__class__.__module__\n"
        f"def context():\n    return multiprocessing.get_context({method!r})\n"
        "if __name__ == '__main__':\n"
        "    import concurrent.futures\n"
        "    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context()) as pool:\n"
        "        print(pool.submit(work, 0).result(60), pool.submit(work, 1).result(60))\n"
    )

    code, out, errors = execute(under_run([sys.executable, *options, "pool.py"]), home)

    main = "__main__" if method == "fork" else "__mp_main__"
    assert (code, out) == (0, f"{(True, main)} {(True, True, main)}\n"), errors


def test_a_python_whose_openhands_is_too_old_runs_its_program_after_one_line(home: Path) -> None:
    old = home / "site" / "openhands_sdk-0.9.0.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: openhands-sdk\nVersion: 0.9.0\n")

    env = environment(PYTHONPATH=str(old.parent))
    code, out, errors = execute(under_run([sys.executable, "-c", "print('ran')"]), home, env)

    assert (code, out) == (0, "ran\n")
    assert "does not have openhands-sdk >= 1.0.0" in errors
    assert errors.count("\n") == 1


def test_a_python_without_this_package_runs_its_program_after_one_line(home: Path) -> None:
    foreign = foreign_python()
    command = [foreign, "report.py", "x"]

    code, out, errors = execute(under_run(command), home)

    plain = execute(command, home)
    assert (code, out) == plain[:2]
    assert errors.startswith(f"openhands-otel: {foreign} runs without telemetry: ")
    assert errors.count("\n") == 1


def foreign_python() -> str:
    for candidate in ("/usr/bin/python3", "/usr/local/bin/python3", "/opt/homebrew/bin/python3"):
        if Path(candidate).exists() and Path(candidate).resolve() != Path(sys.executable).resolve():
            return candidate
    pytest.skip("no Python of another installation on this machine")


def telemetry_variables(home: Path, *options: str, **exported: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "OPENHANDS_"))}
    inherited = {name: value for name, value in kept.items() if name != "PYTHONPATH"}
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    env = {**inherited, "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*", "OTEL_METRICS_EXPORTER": "none", **exported}
    code, out, errors = execute(under_run([sys.executable, "-c", program], *options), home, env)
    assert (code, errors) == (0, "")
    return {
        name: value
        for name, value in json.loads(out).items()
        if name not in inherited and name not in (MARKER, "PYTHONPATH")
    }


def test_nothing_set_means_the_viewer_of_this_machine_and_no_signals_of_others_that_nobody_asked_for(
    home: Path,
) -> None:
    seen = telemetry_variables(home)

    assert seen == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
        "OPENHANDS_OTEL_OWN_VIEWER_ONLY": "true",
        "OPENHANDS_OTEL_TRACES": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_SERVICE_NAME": Path(sys.executable).name,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*",
    }


def test_what_the_user_exported_stays(home: Path) -> None:
    exported = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.test:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=mine",
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_LOGS_EXPORTER": "console",
    }

    seen = telemetry_variables(home, **exported)

    assert exported.items() <= seen.items()
    assert "OTEL_SERVICE_NAME" not in seen


def test_an_endpoint_on_the_grpc_port_is_spoken_to_by_grpc(home: Path) -> None:
    seen = telemetry_variables(home, "--endpoint", "http://collector.test:4317")

    assert seen["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector.test:4317"
    assert seen["OTEL_EXPORTER_OTLP_PROTOCOL"] == "grpc"


def test_options_win_over_the_environment(home: Path) -> None:
    (home / "token").write_text("secret")
    options = ["--endpoint", "http://a.test:9", "--protocol", "grpc", "--service-name", "s", "--token-file", "token"]

    seen = telemetry_variables(home, *options, OTEL_EXPORTER_OTLP_ENDPOINT="http://b.test", OTEL_SERVICE_NAME="t")

    assert seen["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://a.test:9"
    assert seen["OTEL_EXPORTER_OTLP_PROTOCOL"] == "grpc"
    assert seen["OTEL_SERVICE_NAME"] == "s"
    assert seen["OPENHANDS_OTEL_TOKEN_FILE"] == str(home / "token")


AGENT = """
import os
from openhands.sdk import LLM, Agent, LocalConversation
llm = LLM(model="openai/gpt-4o", base_url=os.environ["LLM"], api_key="x", num_retries=0)
conversation = LocalConversation(agent=Agent(llm=llm, tools=[]), workspace=".", visualizer=None)
conversation.send_message("hello")
conversation.run()
conversation.close()
"""


RUN = [{"invoke_agent Agent": [{"chat gpt-4o": []}]}]


@pytest.mark.parametrize(
    ("said", "spans"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "URL"}, RUN),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "URL/v1/metrics"}, []),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "URL/v1/traces"}, RUN),
        ({"--endpoint": "URL", "--token-file": "token"}, RUN),
        ({"--endpoint": "URL", "OTEL_TRACES_EXPORTER": "none"}, []),
        # By the provider of the distribution, which is installed here.
        ({"--endpoint": "URL", "OTEL_TRACES_EXPORTER": "otlp"}, RUN),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_spans_go_where_metrics_go_unless_told_otherwise(
    home: Path, llm_server: LLMServer, prepared: Prepared, said: dict[str, str], spans: list[object]
) -> None:
    """Kind of fault: a default of ours overrides a place that the user has named (no trace in Jaeger).

    The environment that is computed is looked at here; how it gets to a program is the matter of other tests, which
    execute it, and so the import of OpenHands is shared.
    """
    (home / "token").write_text("secret-token")
    with http_trace_receiver() as receiver:
        given = {name: value.replace("URL", receiver.base) for name, value in said.items()}
        options = [word for name, value in given.items() if name.startswith("-") for word in (name, value)]
        env = {name: value for name, value in given.items() if not name.startswith("-")}
        agent = prepared.run(AGENT, home, *options, LLM=llm_server.base_url("default"), **env)
        assert agent.wait() == 0, agent.err
        assert set(receiver.others) == ({"metrics"} - {"metrics" for name in said if "TRACES_ENDPOINT" in name})
        assert receiver.tree() == spans
        if "--token-file" in said:
            assert {headers["authorization"] for headers in receiver.headers} == {"Bearer secret-token"}


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["run"], 2, "no command given"),
        (["run", "--"], 2, "no command given"),
        (["run", "--endpoint", "collector:4318", "--", "true"], 2, "is no URL"),
        (["run", "--endpoint", "http://[", "--", "true"], 2, "is no URL"),
        (["run", "--endpoint", "http://", "--", "true"], 2, "is no URL"),
        (["run", "--token-file", "nowhere", "--", "true"], 2, "cannot be read"),
        (["run", "--protocol", "pigeon", "--", "true"], 2, "invalid choice"),
        (["run", "--unknown", "--", "true"], 2, "--unknown"),
        (["run", "--", "no-such-command"], 127, "command not found"),
        (["run", "--", "./report.py"], 126, "cannot be executed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_and_an_exit_code(home: Path, words: list[str], code: int, reason: str) -> None:
    command = Path(sys.executable).with_name("openhands-otel")

    found, out, errors = execute([str(command), *words], home)

    assert (found, out) == (code, "")
    assert reason in errors
    assert errors.count("\n") == 1


def test_a_configuration_file_stands_in_the_place_of_all_that_would_be_set(home: Path) -> None:
    seen = telemetry_variables(home, OTEL_CONFIG_FILE="otel.yaml")
    plain = {"OTEL_CONFIG_FILE", "OTEL_METRICS_EXPORTER", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"}
    assert {name for name in seen if name.startswith("OTEL_")} <= plain

    env = environment(OTEL_CONFIG_FILE="otel.yaml")
    code, _, errors = execute(under_run(["true"], "--service-name", "s"), home, env)

    assert (code, errors.count("\n")) == (2, 1)
    assert "OTEL_CONFIG_FILE" in errors


def test_an_option_that_an_exported_variable_would_defeat_is_refused(home: Path) -> None:
    env = environment(OTEL_EXPORTER_OTLP_METRICS_ENDPOINT="http://a.test/v1/metrics")

    code, _, errors = execute(under_run(["true"], "--endpoint", "http://b.test"), home, env)

    assert code == 2
    assert "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT" in errors


def test_a_signal_reaches_the_command_itself(home: Path) -> None:
    command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    with subprocess.Popen(
        under_run(command), cwd=home, env=environment(), stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        running.send_signal(signal.SIGTERM)

        assert running.wait(100) == -signal.SIGTERM
