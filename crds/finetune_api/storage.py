"""Where a job's files lie: the S3-compatible storage and the Hugging Face hub, with the Secrets that open them."""

from __future__ import annotations

from pydantic import Field

from finetune_api.base import Model, Rule
from finetune_api.pod import Key, Name, ObjectRef
from finetune_api.uris import Endpoint, Region


class CertificateAuthority(Model):
    """A CA bundle in PEM, in a ConfigMap or Secret of the job's namespace."""

    config_map: Name | None = Field(None, description="Name of the ConfigMap.")
    secret: Name | None = Field(None, description="Name of the Secret.")
    key: Key = Field("ca.crt", description="Key within it.")

    RULES = (
        Rule(
            "has(self.configMap) != has(self.secret)",
            "set exactly one of configMap and secret",
            lambda s: (s.config_map is None) != (s.secret is None),
        ),
    )


class Storage(Model):
    """The S3-compatible storage of all s3:// URIs.

    Without credentialsSecret the default chain is used: service account, instance profile or environment.
    """

    endpoint: Endpoint | None = Field(None, description="URL of the S3 server; AWS when absent.")
    region: Region | None = Field(None, description="Region; us-east-1 when absent.")
    path_style: bool | None = Field(None, description="Put the bucket into the path, not the host name; true when an endpoint is set and this is absent.")
    credentials_secret: Name | None = Field(None, description="Secret in the job's namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if needed, AWS_SESSION_TOKEN.")
    ca: CertificateAuthority | None = Field(None, description="CA of the endpoint's certificate, if it is not a public one.")


class Hub(Model):
    """The Hugging Face hub, for hf:// URIs."""

    endpoint: Endpoint | None = Field(None, description="URL of the hub or of a mirror (HF_ENDPOINT); huggingface.co when absent.")
    token_secret: ObjectRef | None = Field(None, description="Secret in the job's namespace with the key HF_TOKEN, for gated and private repositories.")
