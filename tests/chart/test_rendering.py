"""What the chart makes of its values: pods within the restricted standard, kept objects, refused nonsense."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from .conftest import CHART

Objects = list[dict[str, Any]]


def one(objects: Objects, kind: str, suffix: str = "") -> dict[str, Any]:
    found = [each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(suffix)]
    assert len(found) == 1, (kind, suffix, [each["metadata"]["name"] for each in objects])
    return found[0]


def pod_specs(objects: Objects) -> list[dict[str, Any]]:
    return [each["spec"] for each in objects if each["kind"] == "Pod"] + [
        each["spec"]["template"]["spec"] for each in objects if each["kind"] == "Deployment"
    ]


def test_lint_finds_nothing(run_helm: Callable[..., Any]) -> None:
    done = run_helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_pods_meet_the_restricted_standard(render: Callable[..., Objects]) -> None:
    specs = pod_specs(render())
    assert len(specs) == 2
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize(
    ("given", "added"),
    [
        (None, ["not-ready", "unreachable"]),
        ({"key": "gpu", "operator": "Exists"}, ["not-ready", "unreachable"]),
        ({"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}, ["not-ready", "unreachable"]),
        ({"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}, ["not-ready"]),
        ({"operator": "Exists"}, []),
    ],
)
def test_it_leaves_a_lost_node_within_a_minute(
    render: Callable[..., Objects], given: dict[str, str] | None, added: list[str]
) -> None:
    sets = [f"tolerations[0].{key}={value}" for key, value in (given or {}).items()]
    pod = one(render(*sets, "nodeLossSeconds=20"), "Deployment")["spec"]["template"]["spec"]
    own = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 20}
    found = [{"key": f"node.kubernetes.io/{key}", **own} for key in added]
    assert (pod["tolerations"] or []) == ([given] if given else []) + found
    (default,) = {
        t["tolerationSeconds"] for t in one(render(), "Deployment")["spec"]["template"]["spec"]["tolerations"]
    }
    assert default == 30


def test_one_operator_that_is_replaced_never_doubled(
    render: Callable[..., Objects], run_helm: Callable[..., Any]
) -> None:
    deployment = one(render(), "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    refused = run_helm("template", "finetune", str(CHART), "--set", "replicas=2")
    assert refused.returncode != 0
    assert "replicas" in refused.stderr


@pytest.mark.parametrize(
    "value",
    [
        "replica=1",
        "image.repo=x",
        "watch.namespaces=a",
        "logLevel=loud",
        "trainer.image.pullPolicy=Sometimes",
        "metrics.port=80",
    ],
)
def test_a_wrong_value_is_refused_by_name(run_helm: Callable[..., Any], value: str) -> None:
    refused = run_helm("template", "finetune", str(CHART), "--set", value)
    assert refused.returncode != 0
    assert value.split("=")[0].split(".")[-1] in refused.stderr


def test_the_operator_makes_the_certificate_of_the_service_that_trainers_call(render: Callable[..., Objects]) -> None:
    objects = render()
    secret = one(objects, "Secret")
    assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    environment = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
    assert environment["FINETUNE_REPORT_SECRET"] == secret["metadata"]["name"]
    host = re.fullmatch(r"https://([^:]+):8443", environment["FINETUNE_REPORT_URL"])
    assert host
    assert host[1] in environment["FINETUNE_REPORT_NAMES"].split(",")
    assert host[1].split(".")[0] == one(objects, "Service", "-reports")["metadata"]["name"]
    assert next(each for each in pod["volumes"] if each["name"] == "report-tls")["emptyDir"]["medium"] == "Memory"


def test_rendering_again_gives_the_same_so_that_no_sync_changes_the_ca(run_helm: Callable[..., Any]) -> None:
    first, second = (run_helm("template", "finetune", str(CHART), "--namespace", "x").stdout for _ in range(2))
    assert first == second
    secrets = [each for each in yaml.safe_load_all(first) if each and each["kind"] == "Secret"]
    assert [secret["type"] for secret in secrets] == ["Opaque"]
    assert not [secret for secret in secrets if "data" in secret or "stringData" in secret]


@pytest.mark.parametrize(
    "values",
    [
        ("reports.tls.existingSecret=mine",),
        ("reports.tls.certManager.enabled=true", "reports.tls.certManager.issuerRef.name=ours"),
    ],
)
def test_no_certificate_is_made_where_another_is_given(render: Callable[..., Objects], values: tuple[str, ...]) -> None:
    objects = render(*values)
    assert not [each for each in objects if each["kind"] == "Secret"]
    assert not [r for each in objects if each["kind"] == "Role" for r in each["rules"] if "secrets" in r["resources"]]
    volumes = one(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    mounted = next(each for each in volumes if each["name"] == "report-tls")["secret"]["secretName"]
    if values[0].startswith("reports.tls.existing"):
        assert mounted == "mine"
    else:
        assert one(objects, "Certificate")["spec"]["secretName"] == mounted


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("reports.tls.certManager.enabled=true",), "issuerRef.name is needed"),
        (("reports.tls.certManager.enabled=true", "reports.tls.existingSecret=mine"), "set either"),
        (("serviceAccount.create=false",), "serviceAccount.name is needed"),
    ],
)
def test_values_that_do_not_go_together_are_refused(
    run_helm: Callable[..., Any], values: tuple[str, ...], words: str
) -> None:
    refused = run_helm("template", "finetune", str(CHART), *(part for value in values for part in ("--set", value)))
    assert refused.returncode != 0
    assert words in refused.stderr


def test_a_network_policy_that_names_who_reads_metrics_lets_the_test_pod_in_too(render: Callable[..., Objects]) -> None:
    objects = render(
        "networkPolicy.enabled=true", "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=watchers"
    )
    labels = one(objects, "Pod", "-smoke")["metadata"]["labels"]
    reports, metrics = one(objects, "NetworkPolicy")["spec"]["ingress"]
    assert "from" not in reports, "trainers are in any namespace"
    assert metrics["from"][0] == {"namespaceSelector": {"matchLabels": {"team": "watchers"}}}
    assert metrics["from"][1]["podSelector"]["matchLabels"].items() <= labels.items()


def test_notes_say_what_is_missing(run_helm: Callable[..., Any]) -> None:
    def notes(*values: str) -> str:
        sets = [part for value in values for part in ("--set", value)]
        done = run_helm("install", "finetune", str(CHART), "--dry-run=client", *sets)
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("NOTES:")[2]

    assert "helm test finetune" in notes()
    assert "kubectl apply --server-side -f crds/" in notes("crds.install=false")
    assert "need a Role" in notes("watch.namespaces={a}")
    assert "paused" in notes("replicas=0")


def test_services_do_not_select_the_test_pod(render: Callable[..., Objects]) -> None:
    objects = render()
    labels = one(objects, "Pod", "-smoke")["metadata"]["labels"]
    for service in (each for each in objects if each["kind"] == "Service"):
        selector = service["spec"]["selector"]
        assert any(labels.get(key) != value for key, value in selector.items())


def test_images_by_tag_or_digest(render: Callable[..., Objects]) -> None:
    digest = "sha256:" + "a" * 64
    container = one(render(f"image.digest={digest}", "trainer.image.tag=v9"), "Deployment")["spec"]["template"]["spec"][
        "containers"
    ][0]
    assert container["image"].endswith("@" + digest)
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment["FINETUNE_TRAINER_IMAGE"].endswith(":v9")


def test_optional_objects_appear_only_when_asked_for(render: Callable[..., Objects]) -> None:
    optional = {"ServiceMonitor", "NetworkPolicy"}
    assert not optional & {each["kind"] for each in render()}
    assert optional <= {
        each["kind"] for each in render("metrics.serviceMonitor.enabled=true", "networkPolicy.enabled=true")
    }


def test_the_resource_definition_is_kept_and_can_be_left_out(render: Callable[..., Objects]) -> None:
    definition = one(render(), "CustomResourceDefinition")
    assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not [each for each in render("crds.install=false") if each["kind"] == "CustomResourceDefinition"]


@pytest.mark.parametrize(
    ("values", "places"), [((), ["kube-system"]), (("watch.namespaces={team-a,team-b}",), ["team-a", "team-b"])]
)
def test_releases_that_watch_the_same_have_the_same_lease_wherever_they_are(
    run_helm: Callable[..., Any], values: tuple[str, ...], places: list[str]
) -> None:
    for release, namespace in (("finetune-operator", "finetune-system"), ("second", "elsewhere")):
        sets = [part for value in values for part in ("--set", value)]
        done = run_helm("template", release, str(CHART), "--namespace", namespace, *sets)
        assert done.returncode == 0, done.stderr
        objects = [each for each in yaml.safe_load_all(done.stdout) if each]
        environment = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]
        given = {each["name"]: each.get("value") for each in environment}
        assert given["FINETUNE_LEASE_NAMESPACE"] == "kube-system"
        assert "FINETUNE_LEASE_NAME" not in given
        roles = [each for each in objects if each["kind"] == "Role" and each["metadata"]["name"].endswith("-lease")]
        assert [role["metadata"]["namespace"] for role in roles] == places
        for role in roles:
            assert [rule["resourceNames"] for rule in role["rules"] if "resourceNames" in rule] == [
                ["finetune-operator"]
            ]


def test_ready_means_that_the_operator_works_and_live_that_it_does_not_stand_still(
    render: Callable[..., Objects],
) -> None:
    container = one(render(), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "probes"}
