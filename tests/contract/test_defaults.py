"""The API server's defaults are the models' defaults, also where an object is given in part or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_api.base import parse, parse_stored
from finetune_api.job import Manifest, Spec
from support import judges
from support.control_plane import ControlPlane

VALID = sorted((Path(__file__).parent / "valid").glob("*.yaml"))


@pytest.mark.apiserver
@pytest.mark.parametrize("path", VALID, ids=lambda p: p.stem)
def test_both_fill_in_the_same(path: Path, judge: ControlPlane) -> None:
    manifest = judges.read(path)
    _, stored = judges.server(judge, manifest)
    spec = parse(Manifest, manifest).spec
    assert stored["spec"] == spec.to_json()
    assert parse_stored(Spec, stored["spec"]) == (spec, [])


@pytest.mark.apiserver
def test_the_minimal_manifest_is_complete_on_the_server(judge: ControlPlane) -> None:
    _, stored = judges.server(judge, judges.read(Path(__file__).parent / "valid" / "minimal.yaml"))
    assert stored["spec"]["method"] == {"type": "full"}
    assert stored["spec"]["training"]["seed"] == 42
    assert stored["spec"]["workers"]["replicas"] == 1
    assert stored["spec"]["restartPolicy"] == {"maxRestarts": 5}
    assert stored["spec"]["suspend"] is False
