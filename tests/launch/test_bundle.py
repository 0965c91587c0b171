"""A bundle: what it has, how it is made, and what a Python that has nothing of us gets from it.

Kind of fault: $0 in every environment that nobody can install into (uvx, Agent Canvas, one made in mid-run), and help
that wins over the environment's own packages.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from foreign import make_environment
from one_call import SPENDS, exit_codes, settled
from server.agent_server import agent_server, remote_client
from server.scripts import look_around
from viewer_process import running_viewer, wait_for

from openhands_otel._internal.demo.answers import call, say
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel._internal.launch.footprint import MANIFEST

COMMAND = Path(sys.executable).with_name("openhands-otel")


def execute(*words: str | Path, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    return subprocess.run(list(map(str, words)), cwd=cwd, env=env, capture_output=True, text=True, timeout=100)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "b"
    done = execute(COMMAND, "bundle", folder)
    assert done.returncode == 0, done.stderr
    assert f"PYTHONPATH={folder}/site" in done.stdout
    return folder


def test_its_site_has_a_sitecustomize_alone_and_nothing_in_it_is_compiled(bundle: Path) -> None:
    assert [file.name for file in (bundle / "site").iterdir()] == ["sitecustomize.py"]
    assert {file.suffix for file in bundle.rglob("*.*") if file.is_file()} & {".so", ".pyd", ".pth", ".pyc"} == set()
    contents = json.loads((bundle / MANIFEST).read_text())
    assert {folder.name for folder in (bundle / "lib").iterdir()} == set(contents["packages"])
    assert contents["left_out"]["wrapt"] == contents["left_out"]["protobuf"] == "compiled"
    assert "opentelemetry-util-genai" in contents["packages"]


def test_another_takes_its_place_and_nothing_else_does(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("")
    (tmp_path / "file").write_text("")
    again = tmp_path / "again"
    assert [execute(COMMAND, "bundle", again).returncode for _ in range(2)] == [0, 0]
    refused = [execute(COMMAND, "bundle", tmp_path / name) for name in ("theirs", "file", "file/below")]

    assert [(done.returncode, done.stdout, done.stderr.count("\n")) for done in refused] == [
        (2, "", 1),
        (2, "", 1),
        (1, "", 1),
    ]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["again", "file", "theirs"]


def test_copied_into_a_pod_it_is_found_as_if_its_site_were_named(bundle: Path) -> None:
    """What the OpenTelemetry Operator writes into PYTHONPATH, around what the pod has there, is gone."""
    asks = "import os, sys; print(sys.path, os.environ['PYTHONPATH'], '_openhands_otel_launch' in sys.modules)"
    prefix = bundle / "opentelemetry" / "instrumentation" / "auto_instrumentation"
    assert [file.name for file in prefix.iterdir()] == ["sitecustomize.py"]
    for theirs in ("", f"{bundle.parent}{os.pathsep}"):
        named = f"{prefix}{os.pathsep}{theirs}{bundle}"
        injected = execute(sys.executable, "-c", asks, PYTHONPATH=named)
        site = f"{bundle}/site{os.pathsep}{theirs}".rstrip(os.pathsep)
        assert injected.stdout == execute(sys.executable, "-c", asks, PYTHONPATH=site).stdout
        assert injected.stdout.endswith(f"{site} True\n")


SPEND = f"import sys; sys.path.insert(0, '.')\n{SPENDS}\ndef test_spend():\n    spend()\n"
XDIST = "-m pytest -q -n 1 -p no:cacheprovider spend.py"
LOKY = "import joblib, spend; joblib.Parallel(n_jobs=2)(joblib.delayed(spend.test_spend)() for _ in range(1))"
OPENTELEMETRY = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"
MAKE = f"{sys.executable} {Path(__file__).with_name('foreign.py')}"
FILES = {
    "spend.py": SPEND,
    "script.sh": "python3 spend.py\n",
    "Makefile": "spend:\n\tsh script.sh\n",
    "child.py": "import subprocess, sys; subprocess.run([sys.executable, '-I', 'spend.py'], check=True)\n",
    # What PYTHONPATH names then is somebody else's, and has a sitecustomize.
    "instrument.py": OPENTELEMETRY,
}
WAYS = {
    "a shell script": "sh script.sh",
    "make": "make -s spend",
    "a child that does not look at the environment": "python3 child.py",
    "pytest-xdist": f"python3 {XDIST}",
    "loky": f"python3 -c '{LOKY}'",
    "an environment made in mid-run": f"{MAKE} new && new/bin/python spend.py",
    "opentelemetry-instrument": "python3 instrument.py python3 spend.py",
}


def test_a_tool_sees_what_was_exported_where_a_server_looks_at_the_bundle(
    bundle: Path, llm_server: LLMServer, tmp_path: Path
) -> None:
    """And not what OpenTelemetry's distribution has set, when it started: OpenHands is imported before the bundle."""
    asked = look_around(llm_server)
    looking = ("--extra-python-path", f"{bundle}/site", "--import-modules", "sitecustomize")
    exported = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:9/v1/metrics"}
    with (
        remote_client(tmp_path) as client,
        agent_server(lambda words: [sys.executable, *words, *looking], tmp_path, **exported) as started,
    ):
        conversation = client.open(host=started.url, provider=llm_server.base_url("main"), tools=("terminal",))
        client.run(conversation=conversation, text="hello")
    assert any("named ''" in request for request in asked)
    assert {name for request in asked for name in re.findall(r"(?:OPENHANDS_)?OTEL_\w+", request)} == exported.keys()


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("foreign") / "env")


def test_the_bill_of_an_environment_without_us_is_the_viewers_total(
    tmp_path: Path, foreign: Path, llm_server: LLMServer
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    with running_viewer() as viewer:
        env = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            # As uvx has it: the first ``python3`` is the environment's own.
            "PATH": f"{foreign.parent}{os.pathsep}{os.environ['PATH']}",
            "LLM": llm_server.base_url("default"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": viewer.url,
        }
        running = {
            name: subprocess.Popen(
                [COMMAND, "run", "--service-name", name, "--", "sh", "-ec", way], cwd=tmp_path, env=env
            )
            for name, way in WAYS.items()
        }
        codes = exit_codes(running)
        assert codes == dict.fromkeys(WAYS, 0)
        settled(viewer, llm_server, len(WAYS))


LOOK = (
    "import json, os, sys; from importlib.metadata import distributions;"
    "print(json.dumps([dict(os.environ), sys.path, sorted(sys.modules), sorted(d.name for d in distributions())]))"
)
AGENT = """
import os, sys
from openhands.sdk import LLM, Agent, LocalConversation, Tool
from openhands.tools.terminal import TerminalTool
llm = LLM(model="openai/gpt-4o", base_url=sys.argv[1], api_key="x", num_retries=0)
shell = Tool(name=TerminalTool.name, params={"terminal_type": "subprocess"})
conversation = LocalConversation(agent=Agent(llm=llm, tools=[shell]), workspace=".", visualizer=None)
conversation.send_message("hello")
conversation.run()
conversation.close()
"""


def test_tools_of_an_agent_see_what_they_see_without_us_though_their_python_is_the_agents_own(
    tmp_path: Path, foreign: Path, bundle: Path, llm_server: LLMServer
) -> None:
    """``uvx`` puts its environment's programs first on PATH: a tool's ``python3`` has OpenHands in it."""
    (tmp_path / "look.py").write_text(LOOK)
    (tmp_path / "agent.py").write_text(AGENT)
    (tmp_path / "own").mkdir()
    with running_viewer() as viewer:
        launches = {
            "plain": ([], "own"),
            "run": ([COMMAND, "run", "--"], "own"),
            "folder": ([], f"{bundle / 'site'}{os.pathsep}own"),
        }
        running: dict[str, subprocess.Popen[bytes]] = {}
        for name, (launcher, path) in launches.items():
            command = f"python3 look.py >{name}.json; env | sort >{name}.env"
            llm_server.script(name, [call("terminal", {"command": command}), say("Done.")])
            env = {
                **os.environ,
                "HOME": str(tmp_path),
                "PATH": f"{foreign.parent}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": path,
                # Not the general one, which starts Laminar where we are not there.
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{viewer.url}/v1/metrics",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_RESOURCE_ATTRIBUTES": "service.name=tools",
            }
            running[name] = subprocess.Popen(
                [*launcher, "sh", "-c", 'python3 agent.py "$0"; exit $?', llm_server.base_url(name)],
                cwd=tmp_path,
                env=env,
                stderr=subprocess.PIPE,
            )
        for name, process in running.items():
            _, said = process.communicate(timeout=500)
            assert process.returncode == 0, f"{name}: {said.decode()[-2000:]}"
        wait_for(lambda: viewer.state().totals.llm_calls >= 4, "the calls' arrival", 60)
        assert viewer.state().totals.llm_calls == 4
    for kind in ("json", "env"):
        seen = [(tmp_path / f"{name}.{kind}").read_text() for name in launches]
        assert seen == [seen[0]] * 3


def test_an_environment_whose_opentelemetry_is_too_old_is_told_so_in_one_line(tmp_path: Path, bundle: Path) -> None:
    """What it has wins, and is not mixed with what goes with something newer."""
    packages = tmp_path / "packages"
    (packages / "openhands" / "sdk").mkdir(parents=True)
    (packages / "openhands" / "sdk" / "__init__.py").write_text("import os; print('PYTHONPATH' in os.environ)\n")
    (packages / "opentelemetry_api-1.30.0.dist-info").mkdir()
    (packages / "opentelemetry_api-1.30.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: opentelemetry-api\nVersion: 1.30.0\n"
    )
    program = "import sys; sys.path.append('packages'); import openhands.sdk"
    python = Path(sys.base_prefix, "bin", "python3")

    done = execute(python, "-c", program, cwd=tmp_path, PYTHONPATH=str(bundle / "site"))

    assert (done.returncode, done.stdout) == (0, "False\n")
    assert "runs OpenHands without telemetry" in done.stderr
    assert "opentelemetry-api 1.30.0 is there" in done.stderr
    assert done.stderr.count("\n") == 1


def test_run_without_a_cache_says_so_in_one_line_and_goes_the_way_without_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    program = "import sys; print(any(type(one).__name__ == 'Waiting' for one in sys.meta_path))"

    done = execute(COMMAND, "run", "--", sys.executable, "-c", program, XDG_CACHE_HOME=str(tmp_path / "file"))

    assert (done.returncode, done.stdout) == (0, "True\n")
    assert done.stderr.startswith("openhands-otel: measures only where openhands-otel is installed: ")
    assert done.stderr.count("\n") == 1


def test_two_that_start_at_once_have_one_bundle_and_leave_nothing_else(tmp_path: Path) -> None:
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    shown = "import os; print(os.environ['PYTHONPATH'])"
    words = [COMMAND, "run", "--", "sh", "-c", f'{sys.executable} -c "{shown}"']
    running = [subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = {process.communicate(timeout=200)[0] for process in running}

    (kept,) = (tmp_path / "openhands-otel").iterdir()
    assert {said.partition(os.pathsep)[0].strip() for said in told} == {str(kept / "site")}
