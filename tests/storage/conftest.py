"""Fixtures of the tests of storage: S3 servers, and folders that behave the same."""

from support.hub import hub
from support.s3 import moto, s3, s3_credentials, s3_server, versitygw

__all__ = ["hub", "moto", "s3", "s3_credentials", "s3_server", "versitygw"]
