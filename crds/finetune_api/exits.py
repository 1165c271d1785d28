"""Why a job stopped: one closed list of reasons, each with its exit code, cause, hint and retry rule.

Exit codes are a contract between the launcher and the operator: a user's mistake never retries, a preemption, a lost
peer or a storage fault does. Reasons without an exit code are seen from outside the container only (pod conditions,
events). Codes keep clear of the shell's (1, 2, 126-128) and of 128+signal, which say nothing about us.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Retry(StrEnum):
    """What the operator does after this end of an attempt."""

    NEVER = "never"  # the same input would fail again: the job ends
    BUDGET = "budget"  # try again, as long as the restart budget lasts
    ALWAYS = "always"  # not the job's doing (preemption, suspend): try again, the budget is not touched


class Reason(StrEnum):
    """The closed list of failure reasons; the table below says what each means."""

    # the user's input
    INVALID_CONFIG = "InvalidConfig"
    INVALID_DATA = "InvalidData"
    DATA_NOT_FOUND = "DataNotFound"
    DATA_CHANGED = "DataChanged"
    BUCKET_NOT_FOUND = "BucketNotFound"
    ACCESS_DENIED = "AccessDenied"
    MODEL_NOT_FOUND = "ModelNotFound"
    UNSUPPORTED_MODEL = "UnsupportedModel"
    UNSAFE_MODEL = "UnsafeModel"
    NOTHING_TO_LEARN = "NothingToLearn"
    NON_FINITE_LOSS = "NonFiniteLoss"
    OUT_OF_MEMORY = "OutOfMemory"
    OUTPUT_IN_USE = "OutputInUse"
    CHECKPOINT_MISMATCH = "CheckpointMismatch"
    DISK_FULL = "DiskFull"
    # the world around the job
    INTERRUPTED = "Interrupted"
    PEER_LOST = "PeerLost"
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    CREDENTIALS_EXPIRED = "CredentialsExpired"
    FENCED = "Fenced"
    INTERNAL_ERROR = "InternalError"
    # seen from outside the container only
    OOM_KILLED = "OOMKilled"
    EVICTED = "Evicted"
    PREEMPTED = "Preempted"
    POD_DELETED = "PodDeleted"
    NODE_LOST = "NodeLost"
    EPHEMERAL_STORAGE_EXCEEDED = "EphemeralStorageExceeded"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    CRASHED = "Crashed"
    TOO_MANY_RESTARTS = "TooManyRestarts"
    NAME_CONFLICT = "NameConflict"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CONFIG_ERROR = "ContainerConfigError"
    SECRET_NOT_FOUND = "SecretNotFound"
    UNSCHEDULABLE = "Unschedulable"
    QUOTA_EXCEEDED = "QuotaExceeded"
    ADMISSION_DENIED = "AdmissionDenied"


@dataclass(frozen=True, slots=True)
class Exit:
    """One row of the contract. `code` is None where no process of ours can say it."""

    reason: Reason
    code: int | None
    retry: Retry
    cause: str
    hint: str


_ROWS = (
    Exit(Reason.INVALID_CONFIG, 20, Retry.NEVER, "The job's configuration does not fit the model or the data.", "Change the field that the message names."),
    Exit(Reason.INVALID_DATA, 21, Retry.NEVER, "Rows cannot be read, or a column or label is missing or wrong.", "Mend the file and line that the message names, or allow for bad rows with spec.data.maxBadRows."),
    Exit(Reason.DATA_NOT_FOUND, 22, Retry.NEVER, "No object matches the data URI.", "Check spec.data.*.uri against the bucket's listing."),
    Exit(Reason.DATA_CHANGED, 23, Retry.NEVER, "An object changed after the data manifest was made.", "Write new data under a new prefix, and start a new job."),
    Exit(Reason.BUCKET_NOT_FOUND, 24, Retry.NEVER, "The bucket does not exist at this endpoint.", "Create the bucket, or correct the URI or spec.storage.endpoint."),
    Exit(Reason.ACCESS_DENIED, 25, Retry.NEVER, "The storage or the hub refused the credentials.", "Check the Secret named in spec.storage.credentialsSecret (or the service account's role) and its rights on this bucket."),
    Exit(Reason.MODEL_NOT_FOUND, 26, Retry.NEVER, "No model is at the model URI.", "Check spec.model.uri; it must hold config.json, a tokenizer and *.safetensors."),
    Exit(Reason.UNSUPPORTED_MODEL, 27, Retry.NEVER, "The model's architecture does not fit the task.", "Choose a model that transformers supports for this task."),
    Exit(Reason.UNSAFE_MODEL, 28, Retry.NEVER, "The weights exist only in a format that can run code (pickle), or need remote code.", "Convert the weights to safetensors."),
    Exit(Reason.NOTHING_TO_LEARN, 29, Retry.NEVER, "No row has a token or label to learn from.", "Check the columns, the chat roles and spec.training.maxLength: what must be learned was cut off or masked."),
    Exit(Reason.NON_FINITE_LOSS, 30, Retry.NEVER, "The loss became NaN or infinite.", "Lower spec.training.learningRate, or set spec.training.maxGradNorm; check the rows of the step named."),
    Exit(Reason.OUT_OF_MEMORY, 31, Retry.NEVER, "The memory, of the accelerator or of the process, was not enough.", "Lower spec.training.microBatchSize or maxLength, or use method lora."),
    Exit(Reason.OUTPUT_IN_USE, 32, Retry.NEVER, "Another job owns the output URI.", "Give each job its own spec.output.uri, or set spec.output.overwrite once the other job is gone."),
    Exit(Reason.CHECKPOINT_MISMATCH, 33, Retry.NEVER, "The checkpoint to resume from does not fit this job.", "Use the same model, method and data as the job that wrote it, or start without resumeFrom."),
    Exit(Reason.DISK_FULL, 34, Retry.NEVER, "The scratch volume is full.", "Raise spec.workers.scratchSize."),
    Exit(Reason.INTERRUPTED, 40, Retry.ALWAYS, "The pod was told to stop; a checkpoint was written.", "Nothing to do: the job goes on from the checkpoint."),
    Exit(Reason.PEER_LOST, 41, Retry.BUDGET, "Another worker went away.", "Look at the worker that failed first."),
    Exit(Reason.STORAGE_UNAVAILABLE, 42, Retry.BUDGET, "The storage did not answer, or answered with errors, for longer than the retries last.", "Check spec.storage.endpoint, DNS and the network policy."),
    Exit(Reason.FENCED, 43, Retry.BUDGET, "A newer attempt of this job has taken over the output.", "Nothing to do: the newer attempt goes on."),
    Exit(Reason.INTERNAL_ERROR, 44, Retry.BUDGET, "An unexpected error in the trainer.", "Read the log of the worker named; please report it with the traceback."),
    Exit(Reason.CREDENTIALS_EXPIRED, 45, Retry.BUDGET, "The storage or the hub no longer accepts the credentials, which had worked before.", "Renew the Secret named in spec.storage.credentialsSecret (each attempt reads it anew), or use credentials that last as long as the job, as a service account's role."),
    Exit(Reason.OOM_KILLED, None, Retry.NEVER, "The container used more memory than its limit.", "Raise spec.workers.resources.limits.memory, or lower microBatchSize or maxLength."),
    Exit(Reason.EVICTED, None, Retry.ALWAYS, "The node evicted the pod.", "Nothing to do: the job goes on elsewhere from the last checkpoint."),
    Exit(Reason.PREEMPTED, None, Retry.ALWAYS, "A pod of higher priority or a drained node took the pod's place.", "Nothing to do: the job goes on from the last checkpoint."),
    Exit(Reason.POD_DELETED, None, Retry.BUDGET, "A worker pod was deleted.", "Nothing to do: the job goes on from the last checkpoint."),
    Exit(Reason.NODE_LOST, None, Retry.ALWAYS, "The node went away.", "Nothing to do: the job goes on elsewhere from the last checkpoint."),
    Exit(Reason.EPHEMERAL_STORAGE_EXCEEDED, None, Retry.NEVER, "The pod used more scratch space or shared memory than its limit.", "Raise spec.workers.scratchSize or sharedMemorySize."),
    Exit(Reason.DEADLINE_EXCEEDED, None, Retry.NEVER, "spec.activeDeadlineSeconds has passed.", "Raise it, or start a new job with resumeFrom the last checkpoint."),
    Exit(Reason.CRASHED, None, Retry.BUDGET, "The trainer died without saying why (a signal or an unknown exit code).", "Read the worker's log."),
    Exit(Reason.TOO_MANY_RESTARTS, None, Retry.NEVER, "The restart budget is used up without progress.", "See status.attempts for the cause of each; mend it, or raise spec.restartPolicy.maxRestarts."),
    Exit(Reason.NAME_CONFLICT, None, Retry.NEVER, "An object of the name we need belongs to somebody else.", "Delete or rename the object named."),
    Exit(Reason.IMAGE_PULL_FAILED, None, Retry.NEVER, "The image cannot be pulled.", "Check spec.image, imagePullSecrets and the registry."),
    Exit(Reason.CONTAINER_CONFIG_ERROR, None, Retry.NEVER, "The container cannot be made from its specification.", "Check the Secrets and ConfigMaps that the job names."),
    Exit(Reason.SECRET_NOT_FOUND, None, Retry.NEVER, "A Secret that the job names does not exist, or lacks a key.", "Create the Secret in the job's namespace with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."),
    Exit(Reason.UNSCHEDULABLE, None, Retry.NEVER, "No node has room for the pod.", "Lower spec.workers.resources, add nodes, or correct nodeSelector and tolerations."),
    Exit(Reason.QUOTA_EXCEEDED, None, Retry.NEVER, "The namespace's ResourceQuota leaves no room for the pod.", "Lower spec.workers.resources or raise the quota."),
    Exit(Reason.ADMISSION_DENIED, None, Retry.NEVER, "Pod Security or an admission webhook refused the pod.", "Read the message; our own defaults pass the restricted standard."),
)

EXITS: dict[Reason, Exit] = {row.reason: row for row in _ROWS}
BY_CODE: dict[int, Exit] = {row.code: row for row in _ROWS if row.code is not None}
assert set(EXITS) == set(Reason)
assert len(BY_CODE) == sum(row.code is not None for row in _ROWS)

COMPLETE = 0
"""The run is complete and its artefacts are committed; nothing else exits 0."""


class JobError(Exception):
    """An expected end of a job: names the field or file, says why and what to do.

    `message` never holds a secret's value.
    """

    def __init__(self, reason: Reason, message: str, *, hint: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint or EXITS[reason].hint
        self.field = field

    @property
    def exit_code(self) -> int:
        """The process's exit code for this reason; reasons seen from outside only map to InternalError's."""
        return EXITS[self.reason].code or EXITS[Reason.INTERNAL_ERROR].code or 44

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{self.reason}: {where}{self.message} ({self.hint})"
