"""Who sends a report: by TokenReview, or by the API server's keys where that is refused; no error of ours is a
verdict.
"""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fakecluster.api import Call, FakeApi
from fakecluster.desk import OTHER, UID, opened
from fakecluster.driver import NAMESPACE
from fakecluster.objects import Refusal


class Issuer:
    """Signs tokens as an API server does, and publishes the key."""

    def __init__(self, api: FakeApi, kid: str = "k1") -> None:
        self.key, self.kid = ec.generate_private_key(ec.SECP256R1()), kid
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        api.documents["/.well-known/openid-configuration"] = {"issuer": "https://kubernetes.default.svc"}
        api.documents["/openid/v1/jwks"] = {"keys": [public | {"kid": kid, "alg": "ES256", "use": "sig"}]}

    def token(
        self,
        audience: str = UID,
        pod: str = "p-spam-filter",
        expires: float = 3600,
        issuer: str = "https://kubernetes.default.svc",
        **claims: Any,
    ) -> str:
        now = datetime.datetime.now(datetime.UTC).timestamp()
        bound = {
            "namespace": NAMESPACE,
            "pod": {"name": pod, "uid": pod},
            "serviceaccount": {"name": "default", "uid": "s"},
        }
        payload = {
            "iss": issuer,
            "aud": [audience],
            "iat": now - 10,
            "exp": now + expires,
            "kubernetes.io": bound,
        } | claims
        return jwt.encode(payload, self.key, algorithm="ES256", headers={"kid": self.kid})


async def test_where_token_review_is_forbidden_the_signature_is_checked(api: FakeApi) -> None:
    def forbid(call: Call) -> None:
        if call.plural == "tokenreviews":
            raise Refusal(403, "Forbidden", "no such right")

    api.faults.append(forbid)
    issuer = Issuer(api)
    async with opened(api) as desk:
        assert await desk.send(1, token=issuer.token()) == (200, "taken")
        assert await desk.send(2, token=issuer.token()) == (200, "taken")
        assert sum(call.plural == "tokenreviews" for call in api.calls) == 1  # asked once, then never again


async def test_credentials_of_ours_that_are_not_accepted_for_a_moment_change_nothing_for_good(api: FakeApi) -> None:
    """A 401 is about the operator's token, not about the right to review tokens."""
    answers = [401]

    def reject(call: Call) -> None:
        if call.plural == "tokenreviews" and answers:
            raise Refusal(answers.pop(), "Unauthorized", "Unauthorized")

    api.faults.append(reject)
    async with opened(api) as desk:
        assert await desk.send(1) == (503, "unverified")
        assert await desk.send(2) == (200, "taken")
        assert sum(call.plural == "tokenreviews" for call in api.calls) == 2


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"audience": OTHER}, 401),
        ({"expires": -60}, 401),
        ({"issuer": "https://evil"}, 401),
        ({"kubernetes.io": {"namespace": NAMESPACE}}, 401),
        ({"pod": "p-other"}, 403),
        ({}, 200),
    ],
)
async def test_a_signed_token_is_held_to_audience_issuer_expiry_and_pod(
    api: FakeApi, claims: dict[str, Any], code: int
) -> None:
    issuer = Issuer(api)
    async with opened(api, "jwt") as desk:
        assert (await desk.send(1, token=issuer.token(**claims)))[0] == code


async def test_a_token_signed_by_somebody_else_or_not_at_all_is_refused(api: FakeApi) -> None:
    issuer = Issuer(api)
    forger = Issuer(FakeApi())
    async with opened(api, "jwt") as desk:
        assert (await desk.send(1, token=forger.token()))[0] == 401  # the same key id, another key
        unsigned = jwt.encode(
            jwt.decode(issuer.token(), options={"verify_signature": False}), "", algorithm="none", headers={"kid": "k1"}
        )
        assert (await desk.send(1, token=unsigned))[0] == 401
        assert (await desk.send(1, token="not.a.jwt"))[0] == 401
        for header in ("[" * 5000, '{"alg":"ES256","kid":' + "9" * 5000 + "}", '{"kid":{}}', "7"):
            junk = base64.urlsafe_b64encode(header.encode()).decode().rstrip("=")
            assert (await desk.send(1, token=f"{junk}.e30.AA"))[0] == 401


async def test_a_new_signing_key_is_fetched_and_unknown_ones_do_not_cause_a_storm(api: FakeApi) -> None:
    Issuer(api, "old")
    async with opened(api, "jwt") as desk:
        fresh = Issuer(api, "new")
        forger = Issuer(FakeApi(), "none-such")
        assert (await desk.send(1, token=fresh.token()))[0] == 200
        verifier = desk.tokens._keys
        fetched = verifier._fetched
        for i in range(3):
            assert (await desk.send(2 + i, token=forger.token(expires=1000 + i)))[0] == 401
        assert verifier._fetched == fetched
