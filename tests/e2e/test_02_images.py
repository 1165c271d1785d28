"""What the images hold, seen from inside, as any user on a read-only root file system."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from .cluster import Object, env, wait
from .conftest import Place

OPERATOR = env("OPERATOR_IMAGE") or "localhost/finetune-operator:dev"
TRAINER = env("TRAINER_IMAGE") or "localhost/finetune-trainer:dev"

LOOK = """
import importlib.util, json, os, sys
from importlib.util import cache_from_source as cached
files = [os.path.join(folder, name) for folder, _, names in os.walk("/opt") for name in names]
parts = [path.split("/") for path in files]
print(json.dumps({
    "torch": importlib.util.find_spec("torch") is not None,
    "mib": sum(os.lstat(path).st_size for path in files) / 2**20,
    "tests": [path for path, each in zip(files, parts) if "tests" in each[:-1]][:5],
    "caches": [path for path in (os.path.expanduser("~root/.cache"), "/tmp/uv", "/tmp/.cache") if os.path.exists(path)],
    "compiled": [m for m in ("finetune_api",) if not os.path.exists(cached(importlib.util.find_spec(m).origin))],
    "uid": os.getuid(),
    "writable": os.access("/opt", os.W_OK),
}))
"""
IMPORTS = """
import json, time
began = time.perf_counter()
import finetune_trainer.train.worker
print(json.dumps({"seconds": time.perf_counter() - began}))
"""


def run_in(place: Place, image: str, name: str, script: str) -> Object:
    """Run a script in a pod of this image under the restricted standard; its last line is JSON."""
    container = {
        "name": "look",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", script],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    spec = {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    place.cluster.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}, namespace=place.name
    )
    phase = wait(
        f"pod {name}",
        lambda: (p := place.cluster.get("pod", name, place.name)["status"]["phase"]) in ("Succeeded", "Failed") and p,
        120,
    )
    log = place.cluster.kubectl("logs", name, "-n", place.name)
    assert phase == "Succeeded", log
    return json.loads(log.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def images(make_place: Callable[..., Place]) -> Place:
    return make_place("images")


def test_the_operators_image_is_small_and_knows_no_torch(images: Place) -> None:
    seen = run_in(images, OPERATOR, "operator", LOOK)
    print("operator image on top of its base, MiB:", round(seen["mib"], 1))
    assert not seen["torch"]
    assert seen["mib"] <= 120
    assert (seen["tests"], seen["caches"], seen["compiled"]) == ([], [], [])
    assert seen["uid"] != 0
    assert not seen["writable"]


def test_the_trainers_image_has_torch_and_nothing_superfluous(images: Place) -> None:
    seen = run_in(images, TRAINER, "trainer", LOOK)
    print("trainer image on top of its base, MiB:", round(seen["mib"], 1))
    assert seen["torch"]
    assert (seen["tests"], seen["caches"], seen["compiled"]) == ([], [], [])
    assert seen["uid"] != 0
    seconds = run_in(images, TRAINER, "imports", IMPORTS)["seconds"]
    print("trainer import, seconds:", round(seconds, 1))
