"""Marks for tests that take minutes: they run if an environment variable asks for them."""

import os

import pytest

_200_HEALTHY = "KICKWATCH_200_HEALTHY"
HEALTHY_200 = pytest.mark.skipif(_200_HEALTHY not in os.environ, reason=f"feature: enabled by {_200_HEALTHY}=1")
