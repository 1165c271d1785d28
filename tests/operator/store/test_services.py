"""The headless Service of an attempt: it goes with the attempt's end, also one that an older operator left behind."""

from __future__ import annotations

from fakecluster.driver import NAMESPACE, Driver
from fakecluster.node import COMPONENT, success


def services(driver: Driver) -> list[str]:
    return [each["metadata"]["name"] for each in driver.api.objects.list("services", NAMESPACE)]


async def test_the_service_of_an_attempt_goes_when_it_has_ended_and_nobody_asks_for_it_again(driver: Driver) -> None:
    hold = [True]
    driver.node.end = lambda pod: None if hold[0] and pod["metadata"]["labels"][COMPONENT] == "worker" else success(pod)
    await driver.settle()
    assert len(services(driver)) == 1
    hold[0] = False
    await driver.settle()
    assert driver.status()["phase"] == "Succeeded"
    assert services(driver) == []
    assert len(driver.api.objects.list("jobs", NAMESPACE)) == 2  # kept for their logs, as their pods are
    del driver.api.calls[:]
    await driver.round()
    assert {call.verb for call in driver.api.calls} == {"list"}


async def test_a_service_that_an_older_operator_left_behind_is_found_by_the_list(driver: Driver) -> None:
    driver.node.end = lambda pod: None if pod["metadata"]["labels"][COMPONENT] == "worker" else success(pod)
    await driver.settle()
    (left,) = driver.api.objects.list("services", NAMESPACE)
    driver.node.end = success
    await driver.settle()
    owned = driver.api.objects.create("services", NAMESPACE, left)
    stranger = left | {"metadata": left["metadata"] | {"name": "ft-stranger", "ownerReferences": []}}
    driver.api.objects.create("services", NAMESPACE, stranger)
    await driver.restart()
    await driver.relister.once()
    assert driver.queue.depth == 1
    assert owned["metadata"]["name"] in services(driver)
    await driver.settle()
    assert services(driver) == ["ft-stranger"]
