"""Fixtures of the prepare step's tests: S3 servers, a hub, tiny models, and a place to put a job's data."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.exits import JobError
from finetune_api.report import Stage
from finetune_api.run import RunConfig
from finetune_api.status import DataProfile
from finetune_trainer.prepare import Profile, prepare
from finetune_trainer.report.reporter import Reporter
from support import models
from support.hub import hub
from support.s3 import moto, s3, s3_credentials, s3_server, versitygw

__all__ = ["hub", "moto", "s3", "s3_credentials", "s3_server", "versitygw"]


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder of 128 positions."""
    return models.tiny_bert(tmp_path_factory.mktemp("bert") / "model")


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny decoder with a chat template, of 256 positions."""
    return models.tiny_llama(tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture
def folder(tmp_path: Path, bert: Path) -> Path:
    """A folder with the encoder as model/, ready for `job_config`."""
    shutil.copytree(bert, tmp_path / "model")
    (tmp_path / "data").mkdir()
    return tmp_path


class Runs:
    """Run the prepare step with a real reporter, closed at the end."""

    def __init__(self) -> None:
        self.reporters: list[Reporter] = []

    def __call__(self, config: RunConfig) -> Profile:
        self.reporters.append(Reporter(config, stage=Stage.PREPARING))
        return prepare(config, self.reporters[-1])

    def refused(self, config: RunConfig) -> JobError:
        """The error that the step ends with; it says what to do."""
        with pytest.raises(JobError) as caught:
            self(config)
        assert caught.value.message
        assert caught.value.hint
        return caught.value

    @property
    def reported(self) -> DataProfile:
        """What the last step has reported of the data."""
        data = self.reporters[-1].snapshot.data
        assert data is not None
        return data


@pytest.fixture
def run() -> Iterator[Runs]:
    """run(config) -> Profile."""
    runs = Runs()
    yield runs
    for reporter in runs.reporters:
        reporter.close(final=False)
