"""Names that Kubernetes accepts, whatever the job is called, and that never meet between jobs, components and
attempts."""

from __future__ import annotations

import re
import string
from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st

from finetune_operator.plan import names

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")

ends = st.sampled_from(string.ascii_lowercase + string.digits)
middle = st.text(string.ascii_lowercase + string.digits + "-.", max_size=251)
job_names = st.builds(lambda a, m, b: a + m + b, ends, middle, ends)
uids = st.uuids(version=4).map(str)
numbers = st.integers(1, 10**7 - 1)
components = st.sampled_from([names.PREPARE, names.WORKER])


@given(job_names, uids, components, numbers)
@example("9." + "a-." * 83 + "b1", "00000000-0000-4000-8000-000000000000", names.PREPARE, 10**7 - 1)
@example("a" * 253, "ffffffff-0000-4000-8000-000000000000", names.WORKER, 10**7 - 1)
def test_a_child_is_a_dns_label_with_room_for_the_index(name: str, uid: str, component: str, number: int) -> None:
    child = names.child(name, uid, component, number)
    assert len(child) <= 52
    assert DNS_1035.fullmatch(child)
    assert len(f"{child}-511") <= 63


@given(job_names, uids, numbers)
def test_tries_attempts_and_jobs_never_share_a_name(name: str, uid: str, number: int) -> None:
    other = str(UUID(int=UUID(uid).int ^ (1 << 100)))
    found = {
        names.child(name, uid, names.WORKER, number),
        names.child(name, uid, names.PREPARE, number),
        names.child(name, other, names.WORKER, number),
    }
    assert len(found) == 3


@given(job_names, uids, components, numbers)
def test_labels_are_valid_values(name: str, uid: str, component: str, number: int) -> None:
    for value in names.labels(name, uid, component, number).values():
        assert len(value) <= 63
        assert LABEL_VALUE.fullmatch(value)


def test_long_names_that_differ_late_have_different_labels() -> None:
    assert names.label_value("a" * 252 + "b") != names.label_value("a" * 252 + "c")


def test_an_ordinary_name_reads_well() -> None:
    assert (
        names.child("spam-filter", "0a1b2c3d-1111-4222-8333-444455556666", names.WORKER, 3)
        == "ft-spam-filter-0a1b2c3d-3"
    )
    assert names.child("1.tune", "0a1b2c3d-1111-4222-8333-444455556666", names.PREPARE, 1) == "ft-1-tune-0a1b2c3d-p1"
