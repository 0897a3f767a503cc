"""The Helm chart, rendered by helm and held against Kubernetes' own schemas."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from sqlalchemy.engine import make_url

from stepback_server.settings import Settings
from tests.conftest import ROOT
from tests.deploy.helm import CHART, find_helm, render, run_helm
from tests.server.keeping import metrics

KUBERNETES = "1.37"
OPERATOR_KINDS = {"ServiceMonitor", "PrometheusRule"}
"""Kinds of the Prometheus Operator: Kubernetes' schemas do not know them."""

RULES = "groups: [{name: a, rules: [{alert: B, expr: up == 0}]}]"
VARIANTS: dict[str, list[str]] = {
    "defaults": [],
    "cuda": ["--set", "engine.device=cuda,engine.replicas=3,engine.gpus=2"],
    "everything": [
        "--set",
        "autoscaling.enabled=true,serviceMonitor.enabled=true,serviceMonitor.labels.a=b,"
        "checkpoint.existingClaim=model,image.pullSecrets[0].name=pull,"
        "controller.env.maxSearches=8,controller.nodeSelector.a=b,engine.env.kvCacheMib=64,"
        "engine.tolerations[0].operator=Exists,prometheusRule.enabled=true,"
        "engine.existingKeySecret=engines,serviceMonitor.existingKeySecret=reader,"
        "controller.extraEnv[0].name=OTEL_EXPORTER_OTLP_ENDPOINT,"
        "controller.extraEnv[0].value=http://collector:4318,engine.extraEnv[0].name=NO_COLOR,"
        "engine.extraEnv[0].value=yes,engine.autoscaling.enabled=true,database.password=secret,"
        "database.storageClass=fast",
        "--set-json",
        'networkPolicy={"callers": [{"podSelector": {}}], "controllerEgress": [{"to": []}]}',
        "--set-literal",
        "keys.file=[keys]",
        "--set-literal",
        f"prometheusRule.rules={RULES}",
    ],
    "OpenShift": [
        "--set",
        "podSecurityContext.runAsUser=null,podSecurityContext.runAsGroup=null,"
        "podSecurityContext.fsGroup=null",
    ],
    "nothing optional": [
        "--set",
        "podDisruptionBudget.enabled=false,networkPolicy.enabled=false,keys.existingSecret=mine,"
        "database.enabled=false",
    ],
}


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = find_helm(tmp_path_factory.mktemp("helm"))
    if found is None:
        pytest.skip("there is no helm: put it on PATH, or install what requirements.lock names")
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_what_the_chart_renders_is_valid(helm: Path, name: str) -> None:
    linted = run_helm(helm, "lint", "--strict", str(CHART), *VARIANTS[name])
    assert linted.returncode == 0, linted.stdout
    for manifest in render(helm, *VARIANTS[name]).values():
        if manifest["kind"] not in OPERATOR_KINDS:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_pods_ids_are_the_operators_to_choose_or_to_leave_to_the_cluster(helm: Path) -> None:
    ids = {"runAsUser", "runAsGroup", "fsGroup"}
    for flags, expected in (([], 10001), (VARIANTS["OpenShift"], None)):
        for pod in _pods(render(helm, *flags)):
            assert {pod["securityContext"].get(name) for name in ids} == {expected}
            assert pod["securityContext"]["runAsNonRoot"]
    [controller, *_] = _pods(render(helm, "--set", "podSecurityContext.fsGroup=1000720000"))
    assert controller["securityContext"]["fsGroup"] == 1000720000


def test_no_probe_ends_a_part_that_still_reads_its_weights(helm: Path) -> None:
    flags = ["--set", "controller.startSeconds=600,engine.startSeconds=600"]
    for pod in _pods(render(helm, *flags))[:2]:
        [container] = pod["containers"]
        startup = container["startupProbe"]
        assert startup["httpGet"]["path"] == "/health"
        assert startup["failureThreshold"] * startup["periodSeconds"] >= 600


def test_the_schemas_notice_a_misspelt_field(helm: Path) -> None:
    deployment = render(helm)["Deployment/stepback-controller"]
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 5
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_pod_is_confined(helm: Path, name: str) -> None:
    manifests = render(helm, *VARIANTS[name])
    pods = _pods(manifests)
    assert len(pods) == (2 if name == "nothing optional" else 3)
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        # Variables that name the service stepback-... would be settings that do not exist.
        assert not pod["enableServiceLinks"]
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert container["livenessProbe"] and container["readinessProbe"]
            assert ":" in container["image"] and not container["image"].endswith("latest")


def test_the_controller_knows_engines_by_the_name_that_resolves_to_all(helm: Path) -> None:
    manifests = render(helm, *VARIANTS["cuda"])
    engines = manifests["StatefulSet/stepback-engine"]
    service = manifests[f"Service/{engines['spec']['serviceName']}"]
    [port] = service["spec"]["ports"]
    assert service["spec"]["clusterIP"] == "None"
    # One that leaves takes no new search: its address goes before it does.
    assert "publishNotReadyAddresses" not in service["spec"]
    url = f"dns+http://{service['metadata']['name']}:{port['port']}"
    assert _env(manifests["Deployment/stepback-controller"])["STEPBACK_ENGINE_URLS"] == url
    assert Settings.read({"STEPBACK_ENGINE_URLS": url}).engine_urls == (url,)
    pod = engines["spec"]["template"]["spec"]
    drained = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > drained
    [container] = engines["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert container["image"] == "stepback-llm/cuda:0.2.0"
    assert {"name": "STEPBACK_TENSOR_PARALLEL", "value": "2"} in container["env"]


def test_an_engine_is_given_the_time_to_be_replaced_within_its_pod(helm: Path) -> None:
    engines = render(helm, "--set", "engine.startSeconds=900")["StatefulSet/stepback-engine"]
    [container] = engines["spec"]["template"]["spec"]["containers"]
    liveness = container["livenessProbe"]
    assert liveness["failureThreshold"] * liveness["periodSeconds"] >= 900


def test_a_controller_is_given_the_time_to_read_its_weights(helm: Path) -> None:
    deployment = render(helm, "--set", "controller.startSeconds=300")[
        "Deployment/stepback-controller"
    ]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    startup = container["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 300


def test_a_full_queue_does_not_take_the_endpoint_away(helm: Path) -> None:
    deployment = render(helm)["Deployment/stepback-controller"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready?for=traffic"
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    [command] = compose["services"]["controller"]["healthcheck"]["test"][3:]
    assert "/ready?for=traffic" in command


def test_the_pods_grace_covers_the_servers(helm: Path) -> None:
    deployment = render(helm, "--set", "controller.graceSeconds=60")[
        "Deployment/stepback-controller"
    ]
    pod = deployment["spec"]["template"]["spec"]
    assert _env(deployment)["STEPBACK_GRACE_SECONDS"] == "60"
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    # The most that uvicorn takes after the grace period: commands/serve.py of the server.
    assert pod["terminationGracePeriodSeconds"] > pause + 60 + 10


def test_engines_are_reached_by_controllers_and_prometheus_only(helm: Path) -> None:
    manifests = render(helm)
    policy = manifests["NetworkPolicy/stepback-engine"]["spec"]
    [rule] = policy["ingress"]
    controllers, prometheus = rule["from"]
    labels = manifests["Deployment/stepback-controller"]["spec"]["template"]["metadata"]["labels"]
    assert controllers["podSelector"]["matchLabels"].items() <= labels.items()
    assert labels["app.kubernetes.io/component"] == "controller"
    assert prometheus["podSelector"] and prometheus["namespaceSelector"]
    assert "Egress" in policy["policyTypes"] and "egress" not in policy


def test_keys_come_from_a_secret_and_never_from_the_pod(helm: Path) -> None:
    manifests = render(helm, *VARIANTS["everything"])
    assert manifests["Secret/stepback-keys"]["stringData"] == {"keys.toml": "[keys]"}
    deployment = manifests["Deployment/stepback-controller"]
    [volume] = [it for it in deployment["spec"]["template"]["spec"]["volumes"] if "secret" in it]
    assert volume["secret"]["secretName"] == "stepback-keys"
    [mount] = [
        it
        for it in deployment["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        if it["name"] == volume["name"]
    ]
    assert _env(deployment)["STEPBACK_KEYS_FILE"] == f"{mount['mountPath']}/keys.toml"
    assert "[keys]" not in yaml.safe_dump(deployment)


def test_traces_can_be_asked_for(helm: Path) -> None:
    manifests = render(helm, *VARIANTS["everything"])
    controller = _env(manifests["Deployment/stepback-controller"])
    assert controller["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert _env(manifests["StatefulSet/stepback-engine"])["NO_COLOR"] == "yes"


def test_the_engines_key_is_a_secrets_on_both_sides(helm: Path) -> None:
    manifests = render(helm, *VARIANTS["everything"])
    for workload in ("Deployment/stepback-controller", "StatefulSet/stepback-engine"):
        [container] = manifests[workload]["spec"]["template"]["spec"]["containers"]
        [key] = [one for one in container["env"] if one["name"] == "STEPBACK_ENGINE_API_KEY"]
        assert key["valueFrom"] == {"secretKeyRef": {"name": "engines", "key": "api-key"}}


def test_prometheus_shows_a_key_to_controllers_only(helm: Path) -> None:
    manifests = render(helm, *VARIANTS["everything"])
    [of_controller] = manifests["ServiceMonitor/stepback-controller"]["spec"]["endpoints"]
    [of_engine] = manifests["ServiceMonitor/stepback-engine"]["spec"]["endpoints"]
    assert of_controller["authorization"]["credentials"] == {"name": "reader", "key": "api-key"}
    assert "authorization" not in of_engine


def test_an_engine_spreads_its_model_over_the_gpus_that_it_asks_for(helm: Path) -> None:
    [engine] = [
        one
        for name, one in render(helm, *VARIANTS["cuda"]).items()
        if name.endswith("/stepback-engine") and "template" in one["spec"]
    ]
    [container] = engine["spec"]["template"]["spec"]["containers"]
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert environment["STEPBACK_TENSOR_PARALLEL"] == "2"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2


@pytest.mark.parametrize(
    "values", ["engine.gpus=2", "engine.device=cuda,engine.env.tensorParallel=2"]
)
def test_gpus_that_would_be_paid_for_or_missed_are_refused(helm: Path, values: str) -> None:
    refused = run_helm(helm, "template", "stepback", str(CHART), "--set", values)
    assert refused.returncode != 0
    assert "engine.gpus" in refused.stderr


def test_controllers_share_a_database_and_without_one_a_caller_stays_with_one(helm: Path) -> None:
    manifests = render(helm, "--set-literal", "database.password=p@ss/word")
    assert manifests["Deployment/stepback-controller"]["spec"]["replicas"] == 1
    assert "sessionAffinity" not in manifests["Service/stepback-controller"]["spec"]
    url = manifests["Secret/stepback-database"]["stringData"]["url"]
    address = make_url(url)
    service = manifests["Service/stepback-database"]
    assert (address.host, address.password) == (service["metadata"]["name"], "p@ss/word")
    assert service["spec"]["ports"][0]["port"] == address.port
    [container] = manifests["Deployment/stepback-controller"]["spec"]["template"]["spec"][
        "containers"
    ]
    [variable] = [one for one in container["env"] if one["name"] == "STEPBACK_DATABASE_URL"]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "stepback-database", "key": "url"}
    assert url not in yaml.safe_dump(manifests["Deployment/stepback-controller"])
    [rule] = manifests["NetworkPolicy/stepback-database"]["spec"]["ingress"]
    labels = manifests["Deployment/stepback-controller"]["spec"]["template"]["metadata"]["labels"]
    assert rule["from"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    alone = render(helm, *VARIANTS["nothing optional"])
    assert alone["Service/stepback-controller"]["spec"]["sessionAffinity"] == "ClientIP"
    assert not any("database" in name for name in alone)


def test_without_a_database_no_job_is_promised(helm: Path) -> None:
    without = [*VARIANTS["nothing optional"]]
    deployment = render(helm, *without)["Deployment/stepback-controller"]
    assert Settings.read(_stepback(deployment)).database_url.get_secret_value() == ""
    given = ["--set", "controller.env.databaseUrl=sqlite:////data/jobs.db"]
    deployment = render(helm, *without, *given)["Deployment/stepback-controller"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    names = [one["name"] for one in container["env"]]
    assert names.count("STEPBACK_DATABASE_URL") == 1
    assert _env(deployment)["STEPBACK_DATABASE_URL"] == "sqlite:////data/jobs.db"


@pytest.mark.parametrize("flags", [[], ["--set", "controller.env.maxFileMib=4096"]])
def test_the_largest_uploads_have_room(helm: Path, flags: list[str]) -> None:
    deployment = render(helm, *flags)["Deployment/stepback-controller"]
    settings = Settings.read(_stepback(deployment))
    [tmp] = [
        volume["emptyDir"]["sizeLimit"]
        for volume in deployment["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "tmp"
    ]
    assert tmp == f"{64 + 2 * settings.max_file_mib}Mi"


def test_a_database_of_ones_own_is_named_by_its_secret(helm: Path) -> None:
    manifests = render(helm, "--set", "database.existingSecret=mine")
    assert not any(name.endswith("-database") for name in manifests)
    deployment = manifests["Deployment/stepback-controller"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    [variable] = [one for one in container["env"] if one["name"] == "STEPBACK_DATABASE_URL"]
    assert variable["valueFrom"]["secretKeyRef"]["name"] == "mine"


def test_nothing_scales_by_itself_by_default(helm: Path) -> None:
    manifests = render(helm)
    assert not any("HorizontalPodAutoscaler" in name for name in manifests)


def test_settings_are_the_servers_and_the_queue_is_what_scales(helm: Path) -> None:
    manifests = render(helm, *VARIANTS["everything"])
    assert _env(manifests["Deployment/stepback-controller"])["STEPBACK_MAX_SEARCHES"] == "8"
    assert "replicas" not in manifests["Deployment/stepback-controller"]["spec"]
    assert "replicas" not in manifests["StatefulSet/stepback-engine"]["spec"]
    [metric] = manifests["HorizontalPodAutoscaler/stepback-controller"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    scaler = "HorizontalPodAutoscaler/stepback-engine"
    of_engines = manifests[scaler]["spec"]["metrics"]
    names = [metric["external"]["metric"]["name"] for metric in of_engines]
    assert names == [name, "stepback_jobs_waiting"]
    assert set(names) <= {each.name for each in metrics().described}
    without = ["--set", "engine.autoscaling.targetJobs=0"]
    [metric] = render(helm, *VARIANTS["everything"], *without)[scaler]["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == name
    assert manifests["PrometheusRule/stepback"]["spec"] == yaml.safe_load(RULES)


@pytest.mark.parametrize(
    "value",
    ["engine.device=tpu", "controller.replicas=0", "controller.grace=5", "engine.env.KV-cache=1"],
)
def test_a_value_that_the_schema_does_not_know_is_refused(helm: Path, value: str) -> None:
    refused = run_helm(helm, "template", "stepback", str(CHART), "--set", value)
    assert refused.returncode != 0
    assert "values don't meet the specifications" in refused.stderr


def _pods(manifests: dict[str, dict]) -> list[dict]:
    """The pods of the controller, of the engine, and of the database where there is one."""
    order = ["controller", "engine", "database"]
    workloads = sorted(
        (one for one in manifests.values() if one["kind"] in {"Deployment", "StatefulSet"}),
        key=lambda one: order.index(one["metadata"]["name"].rpartition("-")[2]),
    )
    return [one["spec"]["template"]["spec"] for one in workloads]


def _stepback(workload: dict) -> dict[str, str]:
    """The settings that stand in the pod, those of secrets left out."""
    return {name: value for name, value in _env(workload).items() if name.startswith("STEPBACK_")}


def _env(workload: dict) -> dict[str, str]:
    [container] = workload["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one["value"] for one in container["env"] if "value" in one}
