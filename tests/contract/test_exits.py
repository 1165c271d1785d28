"""Exit codes and reasons: unique, clear of shells and signals, each with a cause and something to do."""

from __future__ import annotations

import re
import signal

import pytest

from finetune_api.exits import BY_CODE, COMPLETE, EXITS, JobError, Reason, Retry

SHELL = {0, 1, 2, 64, 126, 127, 128, 137, 139, 143}
REFERENCE = re.compile(r"spec\.([a-zA-Z.*]+)")


def test_codes_are_unique_and_say_nothing_else() -> None:
    codes = [row.code for row in EXITS.values() if row.code is not None]
    assert len(codes) == len(set(codes)) == len(BY_CODE)
    assert not SHELL & set(codes)
    assert not {128 + s for s in signal.valid_signals()} & set(codes)
    assert not {256 - s for s in signal.valid_signals()} & set(codes)  # subprocess' negative codes, seen by a shell
    assert all(2 < code < 126 for code in codes)
    assert COMPLETE == 0


def test_codes_never_change_their_meaning() -> None:
    assert {row.code: str(row.reason) for row in EXITS.values() if row.code} == {
        20: "InvalidConfig",
        21: "InvalidData",
        22: "DataNotFound",
        23: "DataChanged",
        24: "BucketNotFound",
        25: "AccessDenied",
        26: "ModelNotFound",
        27: "UnsupportedModel",
        28: "UnsafeModel",
        29: "NothingToLearn",
        30: "NonFiniteLoss",
        31: "OutOfMemory",
        32: "OutputInUse",
        33: "CheckpointMismatch",
        34: "DiskFull",
        40: "Interrupted",
        41: "PeerLost",
        42: "StorageUnavailable",
        43: "Fenced",
        44: "InternalError",
        45: "CredentialsExpired",
    }


@pytest.mark.parametrize("row", EXITS.values(), ids=lambda row: str(row.reason))
def test_each_reason_has_a_cause_and_a_hint(row) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]+", row.reason)
    assert row.cause.endswith(".")
    assert row.hint.endswith(".")
    assert 10 < len(row.cause) <= 512
    assert 10 < len(row.hint) <= 512


def test_hints_name_fields_that_exist() -> None:
    from finetune_api.crd import structural
    from finetune_api.job import Spec

    schema = structural(Spec)
    for row in EXITS.values():
        for path in REFERENCE.findall(f"{row.cause} {row.hint}"):
            at = schema
            for part in path.removesuffix(".memory").strip(".").replace(".*", "").split("."):
                if part == "uri" and part not in at["properties"]:
                    at = at["properties"]["train"]
                assert part in at["properties"], f"{row.reason} names spec.{path}"
                at = at["properties"][part]


def test_a_mistake_of_the_user_never_retries_and_a_fault_does() -> None:
    assert all(row.retry is Retry.NEVER for row in EXITS.values() if row.code is not None and row.code < 40)
    assert all(row.retry is not Retry.NEVER for row in EXITS.values() if row.code is not None and row.code >= 40)
    assert {r for r, row in EXITS.items() if row.retry is Retry.ALWAYS} == {
        Reason.INTERRUPTED,
        Reason.EVICTED,
        Reason.PREEMPTED,
        Reason.NODE_LOST,
    }


def test_an_error_says_reason_field_message_and_hint() -> None:
    error = JobError(Reason.INVALID_DATA, "line 7 is no JSON", field="spec.data.train.uri")
    assert str(error) == f"InvalidData: spec.data.train.uri: line 7 is no JSON ({EXITS[Reason.INVALID_DATA].hint})"
    assert error.exit_code == 21
    assert JobError(Reason.EVICTED, "x").exit_code == 44
    assert JobError(Reason.DISK_FULL, "x", hint="buy a disk").hint == "buy a disk"
