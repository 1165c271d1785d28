"""Outputs to checkpoint into: a folder, and a bucket of an S3 server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_api.run import RunConfig
from finetune_trainer.checkpoint import Checkpointer
from finetune_trainer.storage import Location, location
from support.checkpoints import config, own
from support.s3 import s3, s3_credentials

__all__ = ["s3", "s3_credentials"]

Start = Callable[..., Checkpointer]


@pytest.fixture
def out(tmp_path: Path) -> Location:
    """A folder that belongs to job uid-1."""
    place = location(f"file://{tmp_path}/out", config("file:///x").storage)
    own(place)
    return place


@pytest.fixture
def start(out: Location) -> Start:
    """start(attempt=…, …) makes a Checkpointer of the next process group; its claim is the caller's."""

    def begin(
        where: Location | None = None,
        *,
        rank: int = 0,
        facts: dict | None = None,
        identity: dict | None = None,
        **changes: object,
    ) -> Checkpointer:
        settings: RunConfig = config(out.uri(), **changes)  # type: ignore[arg-type]
        return Checkpointer(settings, where or out, rank, facts=facts, identity=identity)

    return begin


@pytest.fixture(params=["file", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Location, RunConfig]:
    """An output in a folder, then in a bucket, with the config that reaches it."""
    if request.param == "file":
        settings = config(f"file://{tmp_path}/out")
    else:
        server = request.getfixturevalue("s3")
        request.getfixturevalue("s3_credentials")
        settings = config(f"s3://{server.bucket()}/jobs/one", access=server.access)
    place = location(settings.output.uri, settings.storage)
    own(place)
    return place, settings
