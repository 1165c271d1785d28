"""Settings and credentials: wrong ones stop the operator at once, and name what is wrong."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_operator.kube.access import Access, AccessError, from_kubeconfig, load_access
from finetune_operator.settings import Settings, SettingsError
from finetune_operator.wiring import kopf_settings

ENV = {"FINETUNE_TRAINER_IMAGE": "trainer:1", "FINETUNE_REPORT_URL": "https://reports.system.svc:8443/"}


def test_the_chart_s_variables_are_read() -> None:
    settings = Settings.from_env(
        ENV
        | {
            "FINETUNE_WATCH_NAMESPACES": "a, b,",
            "FINETUNE_TRAINER_IMAGE_PULL_SECRETS": "x",
            "FINETUNE_NAMESPACE": "own",
            "FINETUNE_LOG_LEVEL": "debug",
        }
    )
    assert (settings.watch_namespaces, settings.clusterwide) == (("a", "b"), False)
    assert (settings.lease_namespace, settings.report_url) == ("own", "https://reports.system.svc:8443")
    assert settings.log_level == "DEBUG"
    plan = settings.plan_settings("PEM")
    assert (plan.trainer_image, plan.image_pull_secrets, plan.report_ca) == ("trainer:1", ("x",), "PEM")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("TRAINER_IMAGE", ""),
        ("REPORT_URL", ""),
        ("REPORT_URL", "http://plain"),
        ("REPORT_PORT", "x"),
        ("METRICS_PORT", "70000"),
        ("WORKERS", "0"),
        ("RELIST_SECONDS", "soon"),
        ("LOG_FORMAT", "xml"),
        ("TRAINER_IMAGE_PULL_POLICY", "Sometimes"),
        ("REPORT_WRITE_SECONDS", "inf"),
        ("REPORT_AUTH", "none"),
    ],
)
def test_a_wrong_value_names_its_variable(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"FINETUNE_{name}: "):
        Settings.from_env(ENV | {f"FINETUNE_{name}": text})


def test_the_process_says_so_in_one_line_and_exits_with_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "finetune_operator"], env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("finetune-operator: FINETUNE_TRAINER_IMAGE: is not set")
    assert done.stderr.count("\n") == 1


def test_the_operator_imports_nothing_of_machine_learning() -> None:
    code = (
        "import finetune_operator.lifecycle, sys; print([m for m in ('torch', 'numpy', 'transformers',"
        " 'finetune_trainer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_kopf_is_kept_to_watching() -> None:
    k = kopf_settings(Settings.from_env(ENV))
    assert k.peering.standalone
    assert k.scanning.disabled
    assert not k.posting.enabled
    assert k.watching.label_selectors["batch", "v1", "jobs"] == "app.kubernetes.io/managed-by=finetune-operator"
    assert k.watching.label_selectors["", "v1", "pods"] == "app.kubernetes.io/managed-by=finetune-operator"
    assert (k.watching.chunk_size, k.networking.request_timeout) == (250, 30)


def test_a_watch_is_never_given_up() -> None:
    pauses = kopf_settings(Settings.from_env(ENV)).networking.error_backoffs
    for _ in range(2):  # for each request anew
        first, *others = itertools.islice(pauses, 100)  # type: ignore[arg-type]
        assert first < 1
        assert others[-1] == 5


def kubeconfig(folder: Path, user: dict[str, object], **cluster: object) -> Path:
    path = folder / "config"
    path.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": {"server": "https://k:6443/"} | cluster}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    return path


def test_a_kubeconfig_with_data_or_files(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("KEY")
    data = base64.b64encode(b"CERT").decode()
    access = from_kubeconfig(kubeconfig(tmp_path, {"client-certificate-data": data, "client-key": "key.pem"}))
    assert (access.server, access.certificate, access.key) == ("https://k:6443", "CERT", "KEY")
    assert "KEY" not in repr(access)


def test_a_token_file_is_read_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    access = load_access({"KUBECONFIG": str(kubeconfig(tmp_path, {"tokenFile": "token"}))})
    assert access.headers() == {"Authorization": "Bearer one"}
    token.write_text("two")
    assert access.headers() == {"Authorization": "Bearer two"}


def test_a_login_by_plugin_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="by a plugin; give it a token"):
        from_kubeconfig(kubeconfig(tmp_path, {"exec": {"command": "aws"}}))


def test_the_pods_service_account_is_used_in_a_cluster(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    access = load_access({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, tmp_path)
    assert access.server == "https://[fd00::1]:443"
    assert access.bearer() == "t"


def test_secrets_do_not_show_in_a_printed_access() -> None:
    assert "hidden" not in repr(Access("https://k", token="hidden", password="hidden", key="hidden"))
