"""Two jobs of one name in two namespaces at once; and what remains of a job that is deleted: its storage, nothing
else.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .cluster import wait
from .conftest import BUCKET, Chart, Place
from .storage import Storage

CHILDREN = "finetunejobs,jobs,pods,services,configmaps"


def test_two_namespaces_at_once_and_deletion_leaves_no_child(
    make_place: Callable[..., Place], chart: Chart, tiny: Storage
) -> None:
    here, there = make_place("two-here"), make_place("two-there")
    long, short = here.job("twin", training__epochs=1000), there.job("twin")
    long.wait_step(1, 300)
    assert [pod for pod in here.cluster.items("pods", here.name) if pod["status"]["phase"] == "Running"]
    long.delete()
    began = time.monotonic()

    def nothing_left() -> bool:
        left = here.cluster.kubectl("get", CHILDREN, "-n", here.name, "-o", "name").split()
        left = [each for each in left if each != "configmap/kube-root-ca.crt"]
        assert not left, left
        return True

    wait("no child of the deleted job", nothing_left, 180)
    print(f"deleted job: no child left after {time.monotonic() - began:.0f} s")
    assert here.storage.keys(BUCKET, here.output("twin")), "the storage of a deleted job is kept"

    status = short.wait_succeeded(300)
    assert status["output"]["uri"].endswith(there.output("twin"))
    assert there.storage.keys(BUCKET, there.output("twin") + "/metrics.json")


def test_a_second_job_with_the_same_output_is_refused(place: Place) -> None:
    first = place.job("first", training__epochs=1000)
    first.wait_step(1, 300)
    second = place.job("second", output__uri=f"s3://{BUCKET}/{place.output('first')}")
    failure = second.wait_failed(180)["failure"]
    assert failure["reason"] == "OutputInUse"
    assert "output.uri" in failure["hint"] + failure["message"]
    assert first.status["phase"] == "Running"
    first.delete()
