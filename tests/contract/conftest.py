"""The API server as a judge: one for all tests of the contract, with our definition installed."""

import pytest
from hypothesis import HealthCheck, settings

from support.control_plane import ControlPlane
from support.judges import install_crd

# A busy machine is no failure: examples are never timed.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def judge(control_plane: ControlPlane) -> ControlPlane:
    install_crd(control_plane)
    return control_plane
