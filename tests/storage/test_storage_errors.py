"""What a storage's refusals become: the contract's reason, the field to change, and no word of the credentials."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError, SSLError

from finetune_api.exits import JobError, Reason
from finetune_api.run import StorageAccess
from finetune_trainer.storage import location
from finetune_trainer.storage.s3.errors import from_boto, is_transient
from support.s3 import S3Server

ENDPOINT = "https://s3.example.com"


def refusal(code: str, status: int) -> ClientError:
    answer = {"Error": {"Code": code, "Message": "canary-key"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetObject")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "reason", "field", "says"),
    [
        (refusal("NoSuchBucket", 404), Reason.BUCKET_NOT_FOUND, None, "bucket mail does not exist"),
        (refusal("InvalidAccessKeyId", 403), Reason.ACCESS_DENIED, None, "InvalidAccessKeyId"),
        (refusal("SignatureDoesNotMatch", 403), Reason.ACCESS_DENIED, None, "refused the credentials"),
        (refusal("ExpiredToken", 400), Reason.ACCESS_DENIED, None, "ExpiredToken"),
        (refusal("RequestTimeTooSkewed", 403), Reason.ACCESS_DENIED, None, "RequestTimeTooSkewed"),
        (refusal("403", 403), Reason.ACCESS_DENIED, None, "HTTP 403"),
        (refusal("AuthorizationHeaderMalformed", 400), Reason.INVALID_CONFIG, "spec.storage.region", "another region"),
        (refusal("PermanentRedirect", 301), Reason.INVALID_CONFIG, "spec.storage.region", "another region"),
        (refusal("301", 301), Reason.INVALID_CONFIG, "spec.storage.region", "another region"),
        (refusal("SlowDown", 503), Reason.STORAGE_UNAVAILABLE, None, "SlowDown"),
        (refusal("QuotaExceeded", 400), Reason.STORAGE_UNAVAILABLE, None, "full or over its quota"),
        (refusal("MethodNotAllowed", 405), Reason.INVALID_CONFIG, None, "MethodNotAllowed"),
        (refusal("PreconditionFailed", 412), Reason.DATA_CHANGED, None, "changed after it was listed"),
        (NoCredentialsError(), Reason.ACCESS_DENIED, None, "no usable credentials"),
        (EndpointConnectionError(endpoint_url=ENDPOINT), Reason.STORAGE_UNAVAILABLE, None, "does not answer"),
        (ReadTimeoutError(endpoint_url=ENDPOINT), Reason.STORAGE_UNAVAILABLE, None, "does not answer"),
        (
            SSLError(endpoint_url=ENDPOINT, error="CERTIFICATE_VERIFY_FAILED"),
            Reason.INVALID_CONFIG,
            "spec.storage.ca",
            "not trusted",
        ),
        (
            SSLError(endpoint_url=ENDPOINT, error="[SSL: WRONG_VERSION_NUMBER]"),
            Reason.INVALID_CONFIG,
            "spec.storage.endpoint",
            "no TLS",
        ),
    ],
)
def test_each_refusal_has_its_reason(error: Exception, reason: Reason, field: str | None, says: str) -> None:
    found = from_boto(error, uri="s3://mail/train/a.jsonl", bucket="mail", endpoint=ENDPOINT, verb="read")
    assert isinstance(found, JobError)
    assert (found.reason, found.field) == (reason, field)
    assert says.replace("no TLS", "does not speak TLS") in found.message
    assert found.hint
    assert "canary" not in str(found)
    assert is_transient(error) == (reason == Reason.STORAGE_UNAVAILABLE and "quota" not in says)


def test_an_endpoint_without_tls_is_said_at_once(s3: S3Server, s3_credentials: None) -> None:
    access = StorageAccess(endpoint=s3.endpoint.replace("http://", "https://"))
    with pytest.raises(JobError) as caught:
        list(location("s3://bucket/x", access).list())
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_CONFIG, "spec.storage.endpoint")
    assert "http://" in caught.value.hint


def test_tls_that_is_spoken_to_without_is_a_refused_request() -> None:
    found = from_boto(refusal("400", 400), uri="s3://mail/a", bucket="mail", endpoint="http://s3:443", verb="list")
    assert isinstance(found, JobError)
    assert found.reason == Reason.INVALID_CONFIG
    assert "http://s3:443" in found.message
