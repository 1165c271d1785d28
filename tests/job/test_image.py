"""The workers run the trainer image that the prepare step ran, whatever the operator or a tag means later."""

from __future__ import annotations

import dataclasses

import pytest

from fakecluster.planning import SETTINGS, Cluster
from finetune_operator.plan import names

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32


def images(c: Cluster, component: str = names.WORKER) -> list[str]:
    return [j["spec"]["template"]["spec"]["containers"][0]["image"] for j in c.jobs(component)]


def upgrade(c: Cluster) -> None:
    c.settings = dataclasses.replace(c.settings, trainer_image="registry.example:5000/team/trainer:9.9")


def restart(c: Cluster) -> None:
    for index in (0, 1):
        c.exit(c.pod(index), 44)
    c.control()
    c.control()
    c.reconcile()


@pytest.mark.parametrize(
    ("name", "image_id", "reference", "digest"),
    [
        ("trainer:1", f"docker.io/library/trainer@{DIGEST}", f"trainer@{DIGEST}", DIGEST),
        (
            "r.example:5000/a/trainer:1",
            f"docker-pullable://r.example:5000/a/trainer@{DIGEST}",
            f"r.example:5000/a/trainer@{DIGEST}",
            DIGEST,
        ),
        (
            "r.example:5000/a/trainer",
            f"r.example:5000/a/trainer@{DIGEST}",
            f"r.example:5000/a/trainer@{DIGEST}",
            DIGEST,
        ),
        (f"r.example/trainer@{DIGEST}", f"r.example/trainer@{DIGEST}", f"r.example/trainer@{DIGEST}", DIGEST),
        ("trainer:1", DIGEST, "trainer:1", DIGEST),  # loaded onto the node by hand: no registry knows this number
        ("trainer:1", "", "trainer:1", None),
        ("trainer:1", "docker://nonsense", "trainer:1", None),
    ],
)
def test_the_workers_ask_for_what_the_prepare_step_ran(
    name: str, image_id: str, reference: str, digest: str | None
) -> None:
    c = Cluster()
    c.settings = dataclasses.replace(SETTINGS, trainer_image=name)
    c.image_ids = {name: image_id}
    c.prepare()
    assert c.status.image
    assert (c.status.image.name, c.status.image.reference, c.status.image.digest) == (name, reference, digest)
    assert images(c) == [reference]
    upgrade(c)
    c.train(20)
    restart(c)
    assert images(c) == [reference, reference]


def test_an_image_named_by_the_spec_is_fixed_too() -> None:
    c = Cluster({"image": "mine/trainer:latest"})
    c.image_ids = {"mine/trainer:latest": f"mine/trainer@{DIGEST}"}
    c.prepare()
    c.train(20)
    c.image_ids = {"mine/trainer:latest": f"mine/trainer@{OTHER}"}  # pushed again
    restart(c)
    assert images(c) == [f"mine/trainer@{DIGEST}"] * 2


def test_an_upgrade_between_the_prepare_step_and_the_workers_changes_nothing() -> None:
    c = Cluster()
    pod = c.check()
    upgrade(c)
    c.exit(pod, 0)
    c.control()
    c.reconcile()
    assert images(c) == images(c, names.PREPARE) == [SETTINGS.trainer_image]


def test_a_prepare_step_that_is_tried_again_may_take_a_newer_image() -> None:
    c = Cluster()
    pod = c.check()
    upgrade(c)
    c.exit(pod, 44)
    c.control()
    c.control()
    c.reconcile()
    assert images(c, names.PREPARE)[-1] == c.settings.trainer_image


def test_a_job_begun_before_images_were_kept_goes_on_with_the_image_of_its_last_attempt() -> None:
    c = Cluster()
    c.prepare()
    c.train(20)
    del c.job["status"]["image"]
    upgrade(c)
    restart(c)
    assert images(c) == [SETTINGS.trainer_image] * 2
