"""A file means here what it means to kubectl: the corpus is read by both, and is the same afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import judges
from support.control_plane import ControlPlane

HERE = Path(__file__).parent


@pytest.mark.apiserver
@pytest.mark.parametrize("folder", ["valid", "invalid"])
def test_kubectl_reads_the_same(folder: str, judge: ControlPlane) -> None:
    paths = [path for path in sorted((HERE / folder).glob("*.yaml")) if path.stem != "name-absent"]
    assert paths
    files = [argument for path in paths for argument in ("-f", str(path))]
    done = judge.kubectl("create", "--dry-run=client", "--validate=false", "-o", "json", *files)
    read = json.JSONDecoder()
    text, seen = done.stdout.strip(), []
    while text:
        value, end = read.raw_decode(text)
        seen += value["items"] if value["kind"] == "List" else [value]
        text = text[end:].strip()
    assert len(seen) == len(paths)
    for path, theirs in zip(paths, seen, strict=True):
        ours = judges.read(path)
        assert ours["spec"] == theirs["spec"], path.name
        assert ours["metadata"]["name"] == theirs["metadata"]["name"]


@pytest.mark.apiserver
def test_kubectl_apply_shows_our_words(judge: ControlPlane) -> None:
    path = HERE / "invalid" / "output-inside-the-model.yaml"
    done = judge.kubectl("apply", "--dry-run=server", "-f", str(path), check=False)
    assert done.returncode != 0
    assert "spec.output.uri" in done.stderr
    assert "must not lie in model.uri; choose another prefix" in done.stderr
