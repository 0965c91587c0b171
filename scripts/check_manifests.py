"""Hold deploy/kubernetes to the schemas: Kubernetes' own, and that of the OpenTelemetry Operator's resource.

    uv run --no-project --with kubernetes-validate==1.37.0 python scripts/check_manifests.py [CHART COLLECTOR]

The Operator's schema is in its Go module, so Go has to be installed. CHART is a folder with the chart
opentelemetry-collector, COLLECTOR a collector's binary: then helm, which has to be on PATH, renders the chart with
collector-values.yaml (checking them by the chart's schema), its objects are held to Kubernetes' schema, and the
configuration in them to ``COLLECTOR validate``. Prints a line for each object; ends with 1 where one is wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "kubernetes"
KUBERNETES = "1.37"
OPERATOR = "github.com/open-telemetry/opentelemetry-operator@v0.140.0"
CRD = "config/crd/bases/opentelemetry.io_instrumentations.yaml"
OURS = ("instrumentation.yaml", "viewer.yaml", "agent-server.yaml")
VALUES = "collector-values.yaml"


def main(words: list[str]) -> int:
    schema = operator_schema()
    found = [
        (name, resource, problem_of(resource, schema))
        for name in OURS
        for resource in yaml.safe_load_all((FOLDER / name).read_text())
    ]
    if words:
        chart, collector = words
        found += [(VALUES, resource, problem_of(resource, schema, collector)) for resource in rendered(chart)]
    else:
        print(f"{VALUES}: not rendered (name a chart and a collector)")
    for name, resource, problem in found:
        print(f"{name}: {resource['kind']} {resource['metadata']['name']}: {problem or 'valid'}")
    return 1 if any(problem for _, _, problem in found) else 0


def rendered(chart: str) -> list[dict[str, Any]]:
    """What Helm would put into a cluster."""
    words = ["helm", "template", "openhands-otel", chart, "--values", str(FOLDER / VALUES)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return [resource for resource in yaml.safe_load_all(done.stdout) if resource]


def problem_of(resource: dict[str, Any], schema: dict[str, Any], collector: str = "") -> str | None:
    try:
        if resource["kind"] == "Instrumentation":
            jsonschema.validate(resource, schema)
        else:
            kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        return error.message
    return refused(resource["data"]["relay"], collector) if collector and resource["kind"] == "ConfigMap" else None


def refused(config: str, collector: str) -> str | None:
    """What the collector says of its configuration, with what the chart's Deployment puts into its environment."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(config)
        file.flush()
        environment = {"MY_POD_IP": "127.0.0.1", "OTLP_TOKEN": "x"}
        words = [collector, "validate", f"--config={file.name}"]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else None


def operator_schema() -> dict[str, Any]:
    """With no room for fields that it does not name, as the API server has none."""
    with tempfile.TemporaryDirectory() as empty:
        words = ["go", "mod", "download", "-json", OPERATOR]
        done = subprocess.run(words, cwd=empty, capture_output=True, text=True, check=True)
    crd = yaml.safe_load((Path(json.loads(done.stdout)["Dir"]) / CRD).read_text())
    (version,) = (version for version in crd["spec"]["versions"] if version["name"] == "v1alpha1")
    return closed(version["schema"]["openAPIV3Schema"])


def closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    # Their names are checked by the API server itself; what is in them is no part of this schema.
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
