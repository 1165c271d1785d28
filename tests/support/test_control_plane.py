"""The fixture that other tests stand on: a real server that authorises, validates and survives its own restart."""

import pytest

from support.control_plane import ControlPlane

pytestmark = pytest.mark.apiserver


def test_the_server_answers_as_administrator_and_refuses_strangers(control_plane: ControlPlane) -> None:
    assert "default" in control_plane.kubectl("get", "namespaces", "-o", "name").stdout
    stranger = control_plane.kubectl("--token=nobody", "get", "namespaces", check=False)
    assert stranger.returncode != 0


def test_objects_survive_a_restart_of_the_server(control_plane: ControlPlane) -> None:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "survives-"}}
    status, namespace = control_plane.request("POST", "/api/v1/namespaces", body)
    assert status == 201
    control_plane.stop_api_server()
    control_plane.start_api_server()
    status, _ = control_plane.request("GET", f"/api/v1/namespaces/{namespace['metadata']['name']}")
    assert status == 200
