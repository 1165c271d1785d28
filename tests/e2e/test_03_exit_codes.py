"""Exit codes are a contract: whatever a worker ends with, the container's exit code and last word say it to the
operator.
"""

from __future__ import annotations

import json

from finetune_api.exits import BY_CODE

from .cluster import wait
from .conftest import Place
from .test_02_images import TRAINER

# The launcher of the image, whose workers fail for a given reason instead of training.
FAIL = """
import sys, types
from finetune_api import run, sources, tuning
from finetune_api.exits import JobError, Reason

def train(*_):
    raise JobError(Reason(sys.argv[1]), "provoked")

worker = types.ModuleType("finetune_trainer.train.worker")  # without torch: twenty imports of it would take minutes
warm_up = types.ModuleType("finetune_trainer.launch.warm_up")
worker.run_worker, warm_up.warm_up = train, lambda config: None
sys.modules |= {module.__name__: module for module in (worker, warm_up)}
from finetune_trainer.launch import launcher

launcher.report_completed = lambda *_: False  # there is no storage
sys.exit(launcher.launch(run.RunConfig(
    job=run.Identity(name="e2e/exit", id="0"), task="text-classification",
    model=sources.ModelSource(uri="s3://b/model"),
    data=sources.Data(train=sources.TrainSource(uri="s3://b/train")),
    method=tuning.Method(), training=tuning.Training(),
    evaluation=tuning.Evaluation(), checkpoints=tuning.Checkpoints(), output=tuning.Output(uri="s3://b/out"),
    world=run.World(),
    reporting=run.Reporting(termination_file="/dev/termination-log"),
)))
"""


def test_each_exit_code_of_the_contract_is_the_containers(place: Place) -> None:
    containers = [
        {
            "name": f"code-{code}",
            "image": TRAINER,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python", "-c", FAIL, row.reason],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": f"tmp-{code}", "mountPath": "/tmp"}],
        }
        for code, row in BY_CODE.items()
    ]
    spec = {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": containers,
        "volumes": [{"name": f"tmp-{code}", "emptyDir": {}} for code in BY_CODE],
    }
    place.cluster.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "exits"}, "spec": spec}, namespace=place.name
    )

    def ended() -> dict[str, dict[str, object]] | None:
        statuses = place.cluster.get("pod", "exits", place.name)["status"].get("containerStatuses") or []
        found = {each["name"]: each["state"]["terminated"] for each in statuses if "terminated" in each["state"]}
        return found if len(found) == len(containers) else None

    seen = wait("all containers ended", ended, 300)
    codes = {name: state["exitCode"] for name, state in seen.items()}
    wrong = [name for name, code in codes.items() if name != f"code-{code}"]
    for name in wrong:
        print(name, codes[name], place.cluster.kubectl("logs", "exits", "-c", name, "-n", place.name, check=False))
    assert not wrong
    for code, row in BY_CODE.items():
        word = json.loads(str(seen[f"code-{code}"]["message"]))
        assert row.reason in json.dumps(word), word
