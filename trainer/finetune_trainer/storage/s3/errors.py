"""What botocore's errors mean, in the user's words (I9) and without a secret (I7).

Each names the bucket, key and endpoint, says why, and what to do.
"""

from __future__ import annotations

from typing import Any

from finetune_api.exits import JobError, Reason
from finetune_trainer.storage.errors import changed

NO_BUCKET = {"NoSuchBucket"}
REFUSED = {
    "AccessDenied",
    "AllAccessDisabled",
    "AccountProblem",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "TokenRefreshRequired",
    "InvalidSecurity",
    "NotSignedUp",
    "Forbidden",
    "Unauthorized",
    "401",
    "403",
    "RequestTimeTooSkewed",
    "RequestExpired",
    "UnauthorizedAccess",
    "XAdminUserNotFound",
    "InvalidTokenId",
}
TRANSIENT = {
    "RequestTimeout",
    "RequestTimeoutException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "PriorRequestNotComplete",
    "InternalError",
    "ServiceUnavailable",
    "OperationAborted",
    "ConditionalRequestConflict",
    "BadDigest",
    "IncompleteBody",
}
"""Codes worth another try. ConditionalRequestConflict (409): another conditional write is in flight, so nothing is
decided yet."""

_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")
"""What OpenSSL says of an answer that is no TLS."""


def code_and_status(error: Any) -> tuple[str, int]:
    """Error code and HTTP status of a botocore ClientError."""
    return str(error.response.get("Error", {}).get("Code", "")), int(
        error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    )


def is_transient(error: Exception) -> bool:
    """Whether trying again may help."""
    from botocore import exceptions as boto

    if isinstance(error, boto.ClientError):
        code, status = code_and_status(error)
        return code in TRANSIENT or status in (408, 429) or (status >= 500 and status != 501)
    if isinstance(error, boto.SSLError):
        return not any(lasting in str(error) for lasting in ("CERTIFICATE_VERIFY_FAILED", *_NO_TLS))
    network = (
        boto.ConnectionError,
        boto.HTTPClientError,
        boto.ConnectionClosedError,
        boto.IncompleteReadError,
        boto.ResponseStreamingError,
        ConnectionError,
        TimeoutError,
    )
    return isinstance(error, network)


def is_refusal(error: Exception) -> bool:
    """Whether the storage did not accept the credentials, or whoever provides them gave none."""
    from botocore import exceptions as boto

    if isinstance(error, boto.ClientError):
        code, status = code_and_status(error)
        if _is_of_provider(error) or code in REFUSED or status in (401, 403):
            return True
        return error.operation_name == "HeadObject" and status == 400  # AWS of an expired token; HEAD has no words
    return isinstance(
        error,
        boto.NoCredentialsError
        | boto.PartialCredentialsError
        | boto.CredentialRetrievalError
        | boto.TokenRetrievalError,
    )


def _is_of_provider(error: Any) -> bool:
    """Whether the answer is not the storage's, but that of a service that gives credentials."""
    return str(error.operation_name).startswith(("AssumeRole", "GetRoleCredentials", "GetSessionToken", "CreateToken"))


def from_boto(error: Exception, *, uri: str, bucket: str, endpoint: str, verb: str, lapsed: bool = False) -> Exception:
    """The JobError (or FileNotFoundError) that a botocore error means. `verb`: what we wanted, as "read".

    `lapsed`: it is a refusal of credentials that had worked before.
    """
    from botocore import exceptions as boto

    at = f"at {endpoint}"
    if lapsed:
        code = code_and_status(error)[0] if isinstance(error, boto.ClientError) else type(error).__name__
        return JobError(
            Reason.CREDENTIALS_EXPIRED,
            f"cannot {verb} {uri}: the storage {at} no longer accepts the credentials ({code}), which had worked"
            " before",
        )
    if isinstance(error, boto.ClientError) and _is_of_provider(error):
        return JobError(
            Reason.ACCESS_DENIED,
            f"cannot {verb} {uri}: no credentials for the storage {at}: {error.operation_name} was refused"
            f" ({code_and_status(error)[0]})",
        )
    if isinstance(error, boto.ClientError):
        code, status = code_and_status(error)
        if code in NO_BUCKET:
            return JobError(Reason.BUCKET_NOT_FOUND, f"bucket {bucket} does not exist {at}")
        if status == 412 or code == "PreconditionFailed":
            return changed(uri)
        if code in REFUSED or status in (401, 403):
            why = f"{code}" if not code.isdigit() else f"HTTP {status}"
            return JobError(
                Reason.ACCESS_DENIED, f"cannot {verb} {uri}: the storage {at} refused the credentials ({why})"
            )
        if code == "NoSuchUpload":
            return JobError(
                Reason.STORAGE_UNAVAILABLE,
                f"cannot {verb} {uri}: its upload was aborted by another writer or a rule of the bucket",
                hint="Look for a lifecycle rule that aborts incomplete multipart uploads too early.",
            )
        if code in ("NoSuchKey", "404", "NotFound"):
            return FileNotFoundError(uri)
        if (
            code in ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException")
            or status == 301
        ):
            return JobError(
                Reason.INVALID_CONFIG,
                f"bucket {bucket} {at} is in another region ({code})",
                hint="Set spec.storage.region to the bucket's region.",
                field="spec.storage.region",
            )
        if is_transient(error):
            return JobError(
                Reason.STORAGE_UNAVAILABLE,
                f"cannot {verb} {uri}: the storage {at} answers with errors ({code}, HTTP {status})",
            )
        if status == 507 or code in ("QuotaExceeded", "XMinioStorageFull", "EntityTooLarge", "InsufficientStorage"):
            return JobError(
                Reason.STORAGE_UNAVAILABLE,
                f"cannot {verb} {uri}: the storage {at} is full or over its quota ({code})",
                hint="Free space in the bucket, or raise its quota.",
            )
        return JobError(
            Reason.INVALID_CONFIG,
            f"cannot {verb} {uri}: the storage {at} refused the request ({code}, HTTP {status})",
            hint="Check spec.storage and the URI.",
        )
    if is_refusal(error):
        return JobError(
            Reason.ACCESS_DENIED,
            f"cannot {verb} {uri}: no usable credentials for the storage {at}",
            hint=(
                "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (in a cluster: the Secret named in "
                "spec.storage.credentialsSecret), or give the service account a role."
            ),
        )
    if isinstance(error, boto.SSLError) and any(word in str(error) for word in _NO_TLS):
        return JobError(
            Reason.INVALID_CONFIG,
            f"the storage {at} does not speak TLS",
            hint="Write the endpoint with http://, or with the port on which it speaks TLS.",
            field="spec.storage.endpoint",
        )
    if isinstance(error, boto.SSLError) and not is_transient(error):
        return JobError(
            Reason.INVALID_CONFIG,
            f"the certificate of the storage {at} is not trusted",
            hint="Name its CA in spec.storage.ca.",
            field="spec.storage.ca",
        )
    if isinstance(error, boto.ParamValidationError | boto.InvalidRegionError | ValueError):
        return JobError(
            Reason.INVALID_CONFIG,
            f"cannot {verb} {uri} {at}: {_first_line(error)}",
            hint="Check the URI's bucket name and spec.storage.",
        )
    if is_transient(error):
        return JobError(
            Reason.STORAGE_UNAVAILABLE,
            f"cannot {verb} {uri}: the storage {at} does not answer ({type(error).__name__})",
        )
    return JobError(Reason.STORAGE_UNAVAILABLE, f"cannot {verb} {uri} {at} ({type(error).__name__})")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
