"""Fixtures of the stream's tests: S3 servers, and folders that behave the same."""

from support.s3 import moto, s3, s3_credentials, s3_server, versitygw

__all__ = ["moto", "s3", "s3_credentials", "s3_server", "versitygw"]
