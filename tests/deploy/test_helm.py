"""The chart: linted, rendered, held to Kubernetes' schemas, and its objects held to each other."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from shutil import which
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from decoder_flags import parse_flags, wanted, wanted_environment

from aqaa.server.config import Settings
from aqaa.server.engine.settings import VllmSettings

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/aqaa"
KUBERNETES = ("1.30", "1.37")  # the oldest that Chart.yaml allows, and the newest that is known
CUSTOM = {"ServiceMonitor", "PrometheusRule"}  # the Prometheus operator's: no schema here

Object = dict[str, Any]

NANO: Object = {}
OMNI: Object = yaml.safe_load((CHART / "examples/130b.yaml").read_text(encoding="utf-8"))
FILLED: Object = {  # what neither of the others has
    "gateway": {"env": {"AQAA_ALLOWED_ORIGINS": "https://voice.example.com"}, "bundle": "b"},
    "imagePullSecrets": [{"name": "registry"}],
    "models": {"init": {"image": "copier:1", "command": ["cp", "-r", "/bundles/.", "/models"]}},
    "decoder": {"enabled": True, "path": "b/decoder", "gpus": 4, "quantization": ""},
    "networkPolicy": {"egress": [{"to": [{"namespaceSelector": {}}], "ports": [{"port": 443}]}]},
    "monitoring": {"serviceMonitor": True, "alerts": True, "labels": {"release": "prometheus"}},
}
ELSEWHERE: Object = {  # gateways of a vLLM that others run
    "gateway": {"env": {"AQAA_ENGINE__ENGINE": "vllm-http"}, "envSecret": "vllm", "bundle": "b"},
    "models": {"hostPath": "/bundles"},
    "networkPolicy": {"egress": [{"to": [{"namespaceSelector": {}}], "ports": [{"port": 8000}]}]},
}
TRACED: Object = FILLED | {"traces": {"endpoint": "http://collector.tracing:4318"}}
CASES = {
    "nano": NANO,
    "130b": OMNI,
    "filled": FILLED,
    "elsewhere": ELSEWHERE,
    "traced": TRACED,
}


@cache
def _rendered(case: str) -> tuple[Object, ...]:
    files = helm_python.Chart.load(str(CHART)).render(CASES[case], name="aqaa", namespace="voice")
    texts = [text for name, text in sorted(files.items()) if name.endswith(".yaml")]
    return tuple(
        document for text in texts for document in yaml.safe_load_all(text) if document is not None
    )


def objects(case: str, kind: str | None = None) -> list[Object]:
    return [o for o in _rendered(case) if kind in (None, o["kind"])]


def one(case: str, kind: str, component: str) -> Object:
    (found,) = [o for o in objects(case, kind) if o["metadata"]["name"] == f"aqaa-{component}"]
    return found


def workloads(case: str) -> list[Object]:
    return objects(case, "Deployment") + objects(case, "StatefulSet")


def pod(workload: Object) -> Object:
    template: Object = workload["spec"]["template"]
    return template


def container(workload: Object) -> Object:
    (only,) = pod(workload)["spec"]["containers"]
    found: Object = only
    return found


def matches(selector: Object, labels: Object) -> bool:
    return selector.items() <= labels.items()


def selected(case: str, selector: Object) -> list[Object]:
    """Workloads whose pods the labels select."""
    return [w for w in workloads(case) if matches(selector, pod(w)["metadata"]["labels"])]


each_case = pytest.mark.parametrize("case", CASES)


# --- Helm's and Kubernetes' own rules -------------------------------------------------------------


@each_case
def test_helm_finds_nothing_wrong(case: str) -> None:
    report = helm_python.lint(str(CHART), CASES[case], strict=True)
    assert report["errors"] == []
    assert [m["error"] for m in report["messages"]] == ["icon is recommended"]


@each_case
@pytest.mark.parametrize("version", KUBERNETES)
def test_every_object_follows_kubernetes_schema(case: str, version: str) -> None:
    kinds = set()
    for found in objects(case):
        if found["kind"] not in CUSTOM:
            kubernetes_validate.validate(found, version, strict=True)
            kinds.add(found["kind"])
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} <= kinds


def test_an_object_that_breaks_the_schema_would_be_seen() -> None:
    wrong = yaml.safe_load(yaml.safe_dump(one("nano", "Deployment", "gateway")))
    wrong["spec"]["template"]["spec"]["containers"][0]["portz"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES[1], strict=True)


@pytest.mark.parametrize(
    "values",
    [
        {"gateway": {"replicas": "two"}},
        {"gateway": {"maxSesions": 4}},
        {"gateway": {"env": {"PATH": "/tmp"}}},
        {"decoder": {"quantization": "fp7"}},
        {"ingress": {"enabled": True, "host": "voice.example.com"}},  # no TLS
        {"decoder": {"enabled": True}},  # no weights
    ],
    ids=["type", "misspelt", "foreign", "quantization", "no-tls", "no-weights"],
)
def test_impossible_values_are_refused(values: Object) -> None:
    with pytest.raises(helm_python.HelmError):
        helm_python.Chart.load(str(CHART)).render(values, name="aqaa", namespace="voice")


def test_every_value_has_a_place_in_the_schema_and_is_used() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = yaml.safe_load((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert set(schema["properties"]) - {"global"} == set(values)
    templates = "\n".join(f.read_text(encoding="utf-8") for f in (CHART / "templates").iterdir())
    leaves = {leaf for leaf in names(values) if not leaf.startswith("AQAA")}
    assert [leaf for leaf in sorted(leaves) if f".{leaf}" not in templates] == []


def names(values: Object) -> Iterator[str]:
    for name, value in values.items():
        yield name
        if isinstance(value, dict) and name not in ("requests", "limits", "resources"):
            yield from names(value)


# --- objects fit each other -----------------------------------------------------------------------


@each_case
def test_selectors_select_exactly_their_own_pods(case: str) -> None:
    for workload in workloads(case):
        assert selected(case, workload["spec"]["selector"]["matchLabels"]) == [workload]
    for service in objects(case, "Service"):
        (target,) = selected(case, service["spec"]["selector"])
        ports = {p["name"] for p in container(target)["ports"]}
        assert {p["targetPort"] for p in service["spec"]["ports"]} <= ports
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        for found in objects(case, kind):
            selector = found["spec"].get("selector") or found["spec"]["podSelector"]
            assert len(selected(case, selector["matchLabels"])) == 1


@each_case
def test_every_workload_has_a_budget_and_a_network_policy(case: str) -> None:
    expected = {w["metadata"]["name"] for w in workloads(case)}
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        assert {o["metadata"]["name"] for o in objects(case, kind)} == expected


@each_case
def test_nobody_but_the_router_reaches_a_decoder_and_nobody_but_gateways_the_router(
    case: str,
) -> None:
    policies = {o["metadata"]["name"]: o["spec"] for o in objects(case, "NetworkPolicy")}
    for name, caller in (("aqaa-decoder", "router"), ("aqaa-router", "gateway")):
        if name not in policies:
            assert case in ("nano", "elsewhere")
            continue
        peers = [p for rule in policies[name]["ingress"] for p in rule["from"]]
        pods = [p["podSelector"]["matchLabels"] for p in peers if "podSelector" in p]
        assert [p["app.kubernetes.io/component"] for p in pods] == [caller]
    for spec in policies.values():
        assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
        assert [p for rule in spec["egress"] for p in rule.get("to", []) if "ipBlock" in p] == []


@each_case
def test_mounted_volumes_and_secrets_are_there(case: str) -> None:
    secrets = {o["metadata"]["name"]: o["data"] for o in objects(case, "Secret")}
    for workload in workloads(case):
        spec = pod(workload)["spec"]
        claimed = workload["spec"].get("volumeClaimTemplates", [])
        volumes = {v["name"] for v in spec["volumes"]} | {c["metadata"]["name"] for c in claimed}
        for c in [*spec["containers"], *spec.get("initContainers", [])]:
            assert {m["name"] for m in c["volumeMounts"]} <= volumes
            for variable in c.get("env", []):
                if "valueFrom" in variable:
                    reference = variable["valueFrom"]["secretKeyRef"]
                    if reference["name"] != "aqaa-keys" or case != "130b":  # the operator's own
                        assert reference["key"] in secrets[reference["name"]]


@each_case
def test_no_key_stands_in_a_workload(case: str) -> None:
    for workload in workloads(case):
        for variable in container(workload).get("env", []):
            if "KEY" in variable["name"]:
                assert "value" not in variable


@each_case
def test_pods_may_do_no_more_than_they_need(case: str) -> None:
    for workload in workloads(case):
        spec, only = pod(workload)["spec"], container(workload)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert only["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert only["securityContext"]["allowPrivilegeEscalation"] is False
        if workload["kind"] == "Deployment":
            assert only["securityContext"]["readOnlyRootFilesystem"] is True


# --- what the programs want -----------------------------------------------------------------------


@each_case
def test_a_gateways_settings_are_settings(case: str) -> None:
    known = set(Settings.model_fields)
    for variable in container(one(case, "Deployment", "gateway"))["env"]:
        if variable["name"].startswith("OTEL_"):
            continue
        name = variable["name"].removeprefix("AQAA_").split("__")[0].lower()
        assert name in known, variable


def test_gateways_of_a_vllm_that_others_run_reach_it_with_its_key() -> None:
    gateway = container(one("elsewhere", "Deployment", "gateway"))
    assert gateway["envFrom"] == [{"secretRef": {"name": "vllm"}}]
    egress = one("elsewhere", "NetworkPolicy", "gateway")["spec"]["egress"]
    assert ELSEWHERE["networkPolicy"]["egress"][0] in egress


def test_a_decoder_may_copy_its_model_from_where_the_operator_lets_it() -> None:
    (way,) = FILLED["networkPolicy"]["egress"]
    for component in ("gateway", "decoder"):
        assert way in one("filled", "NetworkPolicy", component)["spec"]["egress"]


def test_gateways_and_decoders_trace_to_the_same_collector_and_reach_it() -> None:
    gateway = container(one("traced", "Deployment", "gateway"))
    decoder = container(one("traced", "StatefulSet", "decoder"))
    endpoint = "http://collector.tracing:4318"
    assert {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": endpoint} in gateway["env"]
    assert f"--otlp-traces-endpoint={endpoint}/v1/traces" in decoder["args"]
    protocol = {"name": "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "value": "http/protobuf"}
    assert protocol in decoder["env"]
    for component in ("gateway", "decoder"):
        egress = one("traced", "NetworkPolicy", component)["spec"]["egress"]
        assert {"ports": [{"protocol": "TCP", "port": 4318}]} in egress
    everywhere = [v["name"] for v in container(one("nano", "Deployment", "gateway"))["env"]]
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in everywhere


def test_running_answers_may_end_before_the_pod_is_killed() -> None:
    deployment = one("nano", "Deployment", "gateway")
    environment = {v["name"]: v.get("value") for v in container(deployment)["env"]}
    drain = float(environment["AQAA_DRAIN_SECONDS"])
    assert drain == Settings().drain_seconds
    sleep = container(deployment)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(deployment)["spec"]["terminationGracePeriodSeconds"] >= sleep + drain + 10


@pytest.mark.parametrize(
    ("case", "model", "settings"),
    [
        (
            "130b",
            "/models/aqaa-130b/Step-Audio-AQAA",
            VllmSettings(tensor_parallel_size=8, quantization="fp8", max_num_queued_reqs=16),
        ),
        (
            "filled",
            "/models/b/decoder",
            VllmSettings(tensor_parallel_size=4, max_num_queued_reqs=16),
        ),
    ],
    ids=["130b", "filled"],
)
def test_the_decoder_is_launched_as_the_server_itself_would_launch_it(
    case: str, model: str, settings: VllmSettings
) -> None:
    decoder = container(one(case, "StatefulSet", "decoder"))
    assert parse_flags(decoder["args"]) == wanted(settings, model, 8192)
    environment = {v["name"]: v.get("value") for v in decoder["env"]}
    assert wanted_environment(settings).items() <= environment.items()
    assert decoder["resources"]["limits"]["nvidia.com/gpu"] == settings.tensor_parallel_size


def test_the_autoscaler_follows_open_sessions_and_leaves_replicas_to_itself() -> None:
    scaler = one("130b", "HorizontalPodAutoscaler", "gateway")
    deployment = one("130b", "Deployment", "gateway")
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    (metric,) = scaler["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == "aqaa_active_sessions"
    environment = {v["name"]: v.get("value") for v in container(deployment)["env"]}
    target = float(metric["pods"]["target"]["averageValue"])
    assert target < float(environment["AQAA_MAX_SESSIONS"])


def test_callers_and_every_file_of_the_page_come_in_and_metrics_do_not() -> None:
    (ingress,) = objects("130b", "Ingress")
    (rule,) = ingress["spec"]["rules"]
    paths = {p["path"]: p["pathType"] for p in rule["http"]["paths"]}

    def comes_in(asked: str) -> bool:
        return any(
            asked == path if kind == "Exact" else asked.startswith(path)
            for path, kind in paths.items()
        )

    page = ROOT / "clients/web"
    files = {f.relative_to(page).as_posix() for f in page.rglob("*") if f.is_file()}
    asked = {f"/{name}" for name in files - {"index.html"}} | {"/", "/v1/realtime", "/health/ready"}
    assert [path for path in sorted(asked) if not comes_in(path)] == []
    assert not comes_in("/metrics")


def test_monitors_scrape_ports_that_services_have_under_the_alerts_job_names() -> None:
    services = {o["metadata"]["name"]: o for o in objects("130b", "Service")}
    monitors = objects("130b", "ServiceMonitor")
    assert {m["metadata"]["name"] for m in monitors} == set(services)
    jobs = set()
    for monitor in monitors:
        service = services[monitor["metadata"]["name"]]
        labels = service["metadata"]["labels"]
        assert matches(monitor["spec"]["selector"]["matchLabels"], labels)
        jobs.add(labels[monitor["spec"]["jobLabel"]])
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {p["name"] for p in service["spec"]["ports"]}
    alerts = (ROOT / "deploy/prometheus/alerts.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r'job="(\w+)"', alerts)) <= jobs


def test_alerts_and_dashboard_in_the_cluster_are_the_files_of_deploy() -> None:
    (rule,) = objects("130b", "PrometheusRule")
    alerts = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text(encoding="utf-8"))
    assert rule["spec"] == alerts
    dashboard = one("130b", "ConfigMap", "dashboard")["data"]["aqaa.json"]
    assert dashboard == (ROOT / "deploy/grafana/dashboards/aqaa.json").read_text(encoding="utf-8")


def router_config(case: str) -> str:
    config: str = one(case, "ConfigMap", "router")["data"]["haproxy.cfg"]
    return config


def directives(config: str) -> list[str]:
    """Lines without comments; addresses differ between a machine and a cluster."""
    lines = [re.sub(r"\s+#.*|^#.*", "", line).strip() for line in config.splitlines()]
    return [line for line in lines if line and not line.startswith(("bind ", "server "))]


def test_the_router_in_the_cluster_is_the_one_that_was_tested() -> None:
    tested = directives((ROOT / "deploy/haproxy/vllm.cfg").read_text(encoding="utf-8"))
    ours = directives(router_config("130b"))
    added = ["resolvers cluster", "parse-resolv-conf", "hold valid 5s"]
    assert [line for line in ours if line not in added] == tested
    servers = re.findall(r"^\s*server (\S+) (\S+):8000 check", router_config("130b"), re.M)
    assert servers == [
        (f"d{i}", f"aqaa-decoder-{i}.aqaa-decoder.voice.svc.cluster.local") for i in range(2)
    ]


def test_another_configuration_starts_new_routers() -> None:
    sums = {
        case: pod(one(case, "Deployment", "router"))["metadata"]["annotations"]["checksum/config"]
        for case in ("130b", "filled")  # two decoders, and one
    }
    assert sums["130b"] != sums["filled"]


@pytest.mark.programs
@pytest.mark.skipif(which("haproxy") is None, reason="needs haproxy: apt-get install haproxy")
def test_haproxy_accepts_the_routers_configuration(tmp_path: Path) -> None:
    (tmp_path / "haproxy.cfg").write_text(router_config("130b"), encoding="utf-8")
    command = ["haproxy", "-c", "-f", str(tmp_path / "haproxy.cfg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
