"""Fixtures of the stream's tests: S3 servers, and folders that behave the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.run import RunConfig
from finetune_trainer.storage import location
from support.hub import hub
from support.jobs import job_config
from support.s3 import S3Server, moto, s3, s3_credentials, s3_server, versitygw

__all__ = ["hub", "moto", "s3", "s3_credentials", "s3_server", "versitygw"]


@pytest.fixture(params=["file", "s3"])
def put(request: pytest.FixtureRequest, tmp_path: Path, s3_credentials: None) -> Any:
    """put(name, data) writes an object; config(**spec) makes a job that reads data/* of the same place."""

    class Place:
        def __init__(self) -> None:
            self.server: S3Server | None = None
            if request.param == "s3":
                self.server = request.getfixturevalue("s3")
                self.root = f"s3://{self.server.bucket()}/deep/er"
            else:
                self.root = tmp_path.as_uri()

        def __call__(self, name: str, data: bytes) -> None:
            self.out("").put(name, data)

        def out(self, name: str = "/out") -> Any:
            return location(self.root + name, self.config().storage)

        def config(self, pattern: str = "data/*", **spec: Any) -> RunConfig:
            storage = self.server.access if self.server else None
            data = {"train": {"uri": f"{self.root}/{pattern}"}} | spec.pop("data", {})
            return job_config(tmp_path, storage=storage, data=data, output={"uri": f"{self.root}/out"}, **spec)

    return Place()
