"""Both judges of a manifest, the models and a real API server, asked the same question in the same words.

Each answers with its complaints, (field, message) pairs; none means accepted. Files are read as kubectl reads them.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from finetune_api.base import FieldError, parse
from finetune_api.crd import GROUP, PLURAL, VERSION, custom_resource_definition
from finetune_api.job import Manifest
from support.control_plane import ControlPlane

JOBS = f"/apis/{GROUP}/{VERSION}/namespaces/default/{PLURAL}"
Complaints = list[tuple[str, str]]


def read(path: Path) -> dict[str, Any]:
    """The one document of a file, as JSON data."""
    from finetune_cli.manifest import load

    (document,) = load(str(path))
    return document.data


def models(manifest: dict[str, Any]) -> Complaints:
    """The verdict of the models, as for a cluster."""
    try:
        parse(Manifest, manifest)
    except FieldError as error:
        return error.errors
    return []


def install_crd(plane: ControlPlane) -> None:
    """Install our definition and wait until it serves."""
    definition = custom_resource_definition()
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    status, answer = plane.request("POST", f"{path}?fieldValidation=Strict", definition)
    assert status in (201, 409), answer
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status, answer = plane.request("GET", f"{path}/{definition['metadata']['name']}")
        conditions = {c["type"]: c for c in answer.get("status", {}).get("conditions") or ()}
        assert conditions.get("NonStructuralSchema", {}).get("status") != "True", conditions
        if (
            conditions.get("Established", {}).get("status") == "True"
            and plane.request("GET", JOBS.replace("default", "x"))[0] == 200
        ):
            return
        time.sleep(0.1)
    raise AssertionError(f"the definition was not served within a minute: {answer}")


def server(
    plane: ControlPlane, manifest: dict[str, Any], *, update: bool = False, dry_run: bool = True
) -> tuple[Complaints, dict[str, Any]]:
    """The verdict of the API server on a create (or an update), strict, and its answer."""
    query = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
    name = manifest.get("metadata", {}).get("name", "")
    status, answer = (
        plane.request("PUT", f"{JOBS}/{name}{query}", manifest)
        if update
        else plane.request("POST", JOBS + query, manifest)
    )
    return ([], answer) if status in (200, 201) else (complaints(answer), answer)


def complaints(answer: dict[str, Any]) -> Complaints:
    """The fields that a refusal of the API server names."""
    causes = answer.get("details", {}).get("causes", ())
    found = [(cause.get("field", ""), cause["message"]) for cause in causes]
    message = answer.get("message", str(answer))
    found += [(field, "unknown field") for field in re.findall(r'unknown field "([^"]+)"', message)]
    return found or [("", message)]
