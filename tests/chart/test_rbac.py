"""The operator's rights, held against a golden file: any change of them is seen in review."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Objects = list[dict[str, Any]]
GOLDEN = Path(__file__).parent / "golden"
CLUSTER_KINDS = {"ClusterRole", "ClusterRoleBinding"}


def roles(objects: Objects) -> list[dict[str, Any]]:
    return [each for each in objects if each["kind"] in {"Role", "ClusterRole"}]


def summary(objects: Objects) -> list[str]:
    """One line a rule: where, on what, which verbs."""
    lines = []
    for role in roles(objects):
        where = f"{role['kind']} {role['metadata'].get('namespace', '*')}/{role['metadata']['name']}"
        for rule in role["rules"]:
            names = f" named {','.join(rule['resourceNames'])}" if "resourceNames" in rule else ""
            resources = ",".join(
                f"{resource}.{group}".rstrip(".") for group in rule["apiGroups"] for resource in rule["resources"]
            )
            lines.append(f"{where}: {resources}{names}: {','.join(rule['verbs'])}")
    return sorted(lines)


@pytest.mark.parametrize(("golden", "values"), [("cluster", ()), ("namespaced", ("watch.namespaces={team-a,team-b}",))])
def test_rights_are_those_of_the_golden_file(
    render: Callable[..., Objects], golden: str, values: tuple[str, ...]
) -> None:
    assert "\n".join(summary(render(*values))) + "\n" == (GOLDEN / f"rbac-{golden}.txt").read_text()


@pytest.mark.parametrize("values", [(), ("watch.namespaces={team-a}",)])
def test_no_secrets_but_its_own_and_no_wildcards(render: Callable[..., Objects], values: tuple[str, ...]) -> None:
    for role in roles(render(*values)):
        for rule in role["rules"]:
            if rule.get("resourceNames") == ["finetune-operator-report-cert"]:
                assert (role["kind"], role["metadata"]["namespace"]) == ("Role", "finetune-system")
                assert (rule["resources"], rule["verbs"]) == (["secrets"], ["get", "update"])
                continue
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert not [resource for resource in rule["resources"] if resource.split("/")[0] == "secrets"]
            assert "pods/exec" not in rule["resources"]


def test_namespaced_mode_makes_nothing_cluster_wide_but_the_definition(render: Callable[..., Objects]) -> None:
    objects = render("watch.namespaces={team-a,team-b}")
    assert not CLUSTER_KINDS & {each["kind"] for each in objects}
    bound = {each["metadata"]["namespace"] for each in objects if each["kind"] == "RoleBinding"}
    assert bound == {"team-a", "team-b", "finetune-system"}


def test_roles_are_bound_to_the_operators_account_only(render: Callable[..., Objects]) -> None:
    objects = render("serviceAccount.name=robot")
    subjects = [
        s
        for each in objects
        if each["kind"].endswith("RoleBinding") or each["kind"] == "RoleBinding"
        for s in each["subjects"]
    ]
    assert subjects
    assert {(s["kind"], s["name"], s["namespace"]) for s in subjects} == {
        ("ServiceAccount", "robot", "finetune-system")
    }


def test_a_user_who_may_edit_may_run_jobs(render: Callable[..., Objects]) -> None:
    by_label = {}
    for role in roles(render()):
        for label in role["metadata"]["labels"]:
            if label.startswith("rbac.authorization.k8s.io/aggregate-to-"):
                verbs = {verb for rule in role["rules"] for verb in rule["verbs"]}
                by_label[label.rsplit("-", 1)[1]] = by_label.get(label.rsplit("-", 1)[1], set()) | verbs
    assert by_label["view"] == {"get", "list", "watch"}
    assert {"create", "patch", "delete"} <= by_label["edit"]
    assert by_label["admin"] >= by_label["edit"]
    assert not [role for role in roles(render("rbac.aggregate=false")) if role["metadata"]["name"].endswith("-edit")]


def dump_golden(render: Callable[..., Objects]) -> None:
    """Rewrite the golden files after a wanted change; see the diff before it is committed."""
    for name, values in (("cluster", ()), ("namespaced", ("watch.namespaces={team-a,team-b}",))):
        (GOLDEN / f"rbac-{name}.txt").write_text("\n".join(summary(render(*values))) + "\n")
