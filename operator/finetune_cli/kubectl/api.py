"""What the plugin needs of the API server, by the official client; every refusal becomes one line with a remedy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from finetune_api import GROUP, PLURAL, VERSION
from finetune_cli.terminal import Stop
from finetune_operator.plan import names


@dataclass(frozen=True, slots=True)
class JobsApi:
    """The FineTuneJobs and pods of one cluster, as a kubeconfig's context names it."""

    client: Any  # kubernetes.client.ApiClient
    namespace: str

    def job(self, name: str) -> dict[str, Any]:
        """The FineTuneJob."""
        with _explained(name, self.namespace):
            return dict(self._objects().get_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, name))

    def jobs(self, everywhere: bool) -> list[dict[str, Any]]:
        """All FineTuneJobs of the namespace, or of all namespaces."""
        with _explained(None, None if everywhere else self.namespace):
            if everywhere:
                found = self._objects().list_cluster_custom_object(GROUP, VERSION, PLURAL)
            else:
                found = self._objects().list_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL)
            return list(found["items"])

    def suspend(self, name: str, value: bool) -> dict[str, Any]:
        """Set spec.suspend."""
        with _explained(name, self.namespace):
            body = {"spec": {"suspend": value}}
            return dict(
                self._objects().patch_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, name, body)
            )

    def pods(self, uid: str) -> list[Any]:
        """The pods of a job, of all its attempts."""
        with _explained(None, self.namespace):
            selector = f"{names.JOB_UID}={uid}"
            return list(self._core().list_namespaced_pod(self.namespace, label_selector=selector).items)

    def log(self, pod: str, *, follow: bool, tail: int | None) -> Iterator[str]:
        """The lines of a pod's log, as they come if it is followed."""
        with _explained(None, self.namespace):
            more = {"tail_lines": tail} if tail is not None else {}
            answer = self._core().read_namespaced_pod_log(
                pod, self.namespace, container=names.CONTAINER, follow=follow, _preload_content=False, **more
            )
            rest = b""
            for chunk in answer.stream():
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
            if rest:
                yield rest.decode(errors="replace")

    def _objects(self) -> Any:
        from kubernetes.client import CustomObjectsApi

        return CustomObjectsApi(self.client)

    def _core(self) -> Any:
        from kubernetes.client import CoreV1Api

        return CoreV1Api(self.client)


def connect(kubeconfig: str | None, context: str | None, namespace: str | None) -> JobsApi:
    """The cluster that the options name, by kubectl's rules. Raises Stop."""
    try:
        from kubernetes import config
    except ImportError:
        raise Stop(
            "the kubernetes package is not installed", hint="pip install 'finetune-operator[cli]' brings it."
        ) from None
    try:
        client = config.new_client_from_config(config_file=kubeconfig, context=context)
        contexts, current = config.list_kube_config_contexts(config_file=kubeconfig)
    except (config.ConfigException, OSError, ValueError) as error:
        if kubeconfig is None and context is None:
            with contextlib.suppress(config.ConfigException):
                config.load_incluster_config()
                from kubernetes.client import ApiClient

                return JobsApi(ApiClient(), namespace or _own_namespace())
        what = " ".join(str(error).split())[:300]
        raise Stop(f"no cluster to talk to: {what}", hint="Check --kubeconfig, --context and $KUBECONFIG.") from None
    chosen = next((c for c in contexts if c["name"] == context), current)
    return JobsApi(client, namespace or chosen["context"].get("namespace") or "default")


def _own_namespace() -> str:
    try:
        with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace") as file:
            return file.read().strip()
    except OSError:
        return "default"


@contextlib.contextmanager
def _explained(name: str | None, namespace: str | None) -> Iterator[None]:
    """The API server's refusals, and its absence, in one line."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    where = f"namespace {namespace}" if namespace else "all namespaces"
    try:
        yield
    except ApiException as error:
        if error.status == 404 and name is not None and "could not find the requested resource" not in str(error.body):
            raise Stop(f"no FineTuneJob {name} in {where}", hint="kubectl finetune list -A shows all.") from None
        if error.status == 404 and name is None and namespace and "pods" in str(error.body):
            raise Stop(f"the pod is gone from {where}") from None
        if error.status == 404:
            raise Stop(
                "this cluster has no FineTuneJobs", hint="helm install finetune charts/finetune-operator installs them."
            ) from None
        if error.status in (401, 403):
            raise Stop(
                f"the cluster refuses this in {where}: {_message(error)}",
                hint="Ask for the finetune-operator view or edit role.",
            ) from None
        raise Stop(f"the API server answered {error.status}: {_message(error)}") from None
    except HTTPError as error:
        what = " ".join(str(getattr(error, "reason", error)).split())[:200]
        raise Stop(f"the API server does not answer: {what}", hint="Check the context and the network.") from None


def _message(error: Any) -> str:
    import json

    try:
        return str(json.loads(error.body)["message"])[:500]
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
