"""Credentials that end while a job runs (session tokens, rotated keys), told apart from those that were never enough.

The evidence is a request that was granted before, by this process or by an earlier one of the job: it is made again. If
it is still granted, only the new request is refused, which no retry changes (AccessDenied). If not, the credentials
have lapsed: whoever provides them may renew them, so it is tried again with a fresh client, and then in the next
attempt.
"""

from __future__ import annotations

from typing import Any

from finetune_api.run import StorageAccess
from finetune_trainer.storage.s3.client import client_for, key_of, renew_client
from finetune_trainer.storage.s3.errors import is_refusal, is_transient

_granted: dict[tuple[str, int], tuple[str, dict[str, Any]] | None] = {}
"""By access: a request that was granted. Plain values, which may cross a fork."""


def trust(access: StorageAccess) -> None:
    """An earlier process of this job had access: what is refused from now on was granted before."""
    _granted.setdefault(key_of(access), None)


def note(access: StorageAccess, operation: str, **request: Any) -> None:
    """A request was granted. A listing is the better witness: no object that may be deleted has a part in it."""
    before = _granted.get(key_of(access))
    if before is None or before[0] != "list_objects_v2":
        _granted[key_of(access)] = (operation, request)


class Refusals:
    """The refusals of one request, in a row."""

    def __init__(self, access: StorageAccess) -> None:
        self._access = access
        self._alive = False  # the credentials were found to be good after the last refusal

    def lapsed(self, error: Exception) -> bool:
        """Whether to try again, with a fresh client that has read its credentials anew.

        Twice in a row the witness must be granted and this request refused: in between the credentials may be renewed.
        """
        key = key_of(self._access)
        if key not in _granted or not is_refusal(error):
            return False
        renew_client(self._access)
        before, self._alive = self._alive, self._granted(_granted[key])
        return not (before and self._alive)

    def _granted(self, witness: tuple[str, dict[str, Any]] | None) -> bool:
        if witness is None:
            return False
        operation, request = witness
        try:
            getattr(client_for(self._access), operation)(**request)
        except Exception as error:
            return not (is_refusal(error) or is_transient(error))  # no such key, no such bucket: it was let in
        return True
