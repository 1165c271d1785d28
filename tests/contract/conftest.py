"""The API server as a judge: one for all tests of the contract, with our definition installed."""

import pytest

from support.control_plane import ControlPlane
from support.judges import install_crd


@pytest.fixture(scope="session")
def judge(control_plane: ControlPlane) -> ControlPlane:
    install_crd(control_plane)
    return control_plane
