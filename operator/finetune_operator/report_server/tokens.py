"""Who sends a report: the pod behind a bearer token whose audience is the job's UID.

The API server judges by TokenReview. In namespaced mode, where that cluster-wide right is refused, the token's
signature is checked here against the API server's published keys. Either way the answer is a pod, and the caller still
checks that it is a live pod of that job. Tokens are kept as digests only, for at most a minute; none is ever logged
(I7).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jwt

from finetune_operator.kube.client import KubeClient
from finetune_operator.kube.errors import ApiError, Forbidden
from finetune_operator.kube.kinds import TOKEN_REVIEW

log = logging.getLogger(__name__)

CACHE_SECONDS = 60.0
REFUSED_SECONDS = 10.0
CACHE_SIZE = 4096
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512")
_POD_NAME, _POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"


@dataclass(frozen=True, slots=True)
class Sender:
    """The pod that a token was made for."""

    namespace: str
    pod_name: str
    pod_uid: str


class Unauthenticated(Exception):
    """The token proves nothing here; the message says why, without the token."""


class TokenReviewer:
    """Asks the API server."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def verify(self, token: str, audience: str) -> Sender:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        status = (await self._client.create(TOKEN_REVIEW, None, body, fenced=False)).get("status") or {}
        if not status.get("authenticated"):
            raise Unauthenticated("the API server does not accept the token for this job")
        if audience not in (status.get("audiences") or ()):
            raise Unauthenticated("the token was made for another audience")
        user = status.get("user") or {}
        extra = user.get("extra") or {}
        parts = str(user.get("username") or "").split(":")  # system:serviceaccount:<namespace>:<name>
        name, uid = (extra.get(_POD_NAME) or [""])[0], (extra.get(_POD_UID) or [""])[0]
        if parts[:2] != ["system", "serviceaccount"] or len(parts) != 4 or not uid:
            raise Unauthenticated("the token is not bound to a pod")
        return Sender(parts[2], name, uid)


class KeyVerifier:
    """Checks signature, issuer, audience and expiry against the API server's keys; they are fetched again for an
    unknown one.
    """

    REFRESH_SECONDS = 10.0

    def __init__(self, client: KubeClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._clock = client, clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._issuer = ""
        self._fetched = float("-inf")
        self._lock = asyncio.Lock()

    async def verify(self, token: str, audience: str) -> Sender:
        try:
            key = await self._key(str(jwt.get_unverified_header(token).get("kid") or ""))
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=audience,
                issuer=self._issuer,
                leeway=5,
                options={"require": ["exp", "iat", "aud", "iss"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired") from None
        except jwt.InvalidAudienceError:
            raise Unauthenticated("the token was made for another audience") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:  # nothing of it was checked before
            raise Unauthenticated(f"the token is not valid ({type(error).__name__})") from None
        bound = claims.get("kubernetes.io") or {}
        pod = bound.get("pod") or {}
        if not (bound.get("namespace") and pod.get("uid")):
            raise Unauthenticated("the token is not bound to a pod")
        return Sender(str(bound["namespace"]), str(pod.get("name") or ""), str(pod["uid"]))

    async def _key(self, kid: str) -> jwt.PyJWK:
        async with self._lock:
            if kid not in self._keys and self._clock() - self._fetched >= self.REFRESH_SECONDS:
                config = await self._client.raw("/.well-known/openid-configuration")
                keys = await self._client.raw("/openid/v1/jwks")
                self._issuer, self._fetched = str(config.get("issuer") or ""), self._clock()
                self._keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(keys).keys if key.key_id}
        if kid not in self._keys:
            raise Unauthenticated("the token is signed by a key that the API server does not publish")
        return self._keys[kid]


class Tokens:
    """Verification with a bounded cache. `mode` auto asks by TokenReview until that is refused, then checks keys."""

    def __init__(
        self,
        client: KubeClient,
        mode: Literal["auto", "tokenreview", "jwt"],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reviewer, self._keys = TokenReviewer(client), KeyVerifier(client, clock)
        self._mode, self._clock = mode, clock
        self._cache: OrderedDict[bytes, tuple[float, Sender | str]] = OrderedDict()
        self._slots = asyncio.Semaphore(16)

    def known(self, token: str, audience: str) -> bool:
        """Whether a verdict on the token is at hand, so that nobody need be asked."""
        kept = self._cache.get(_digest(token, audience))
        return kept is not None and kept[0] > self._clock()

    async def sender(self, token: str, audience: str) -> Sender:
        """The pod behind the token. Raises Unauthenticated, or ApiError when it cannot be found out now."""
        digest = _digest(token, audience)
        now = self._clock()
        kept = self._cache.get(digest)
        if kept and kept[0] > now:
            if isinstance(kept[1], str):
                raise Unauthenticated(kept[1])
            return kept[1]
        async with self._slots:
            try:
                sender = await self._verify(token, audience)
            except Unauthenticated as error:
                self._keep(digest, now + REFUSED_SECONDS, str(error))
                raise
        self._keep(digest, now + CACHE_SECONDS, sender)
        return sender

    async def _verify(self, token: str, audience: str) -> Sender:
        if self._mode == "jwt":
            return await self._keys.verify(token, audience)
        try:
            return await self._reviewer.verify(token, audience)
        except Forbidden as error:
            if self._mode == "tokenreview":
                raise
            log.info(
                "TokenReview is refused (%s): tokens are checked against the API server's keys from now on",
                error.reason,
            )
            self._mode = "jwt"
        return await self._keys.verify(token, audience)

    def _keep(self, digest: bytes, until: float, verdict: Sender | str) -> None:
        self._cache[digest] = (until, verdict)
        self._cache.move_to_end(digest)
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)


def _digest(token: str, audience: str) -> bytes:
    return hashlib.sha256(f"{audience}\0{token}".encode()).digest()


__all__ = ["ApiError", "KeyVerifier", "Sender", "TokenReviewer", "Tokens", "Unauthenticated"]
