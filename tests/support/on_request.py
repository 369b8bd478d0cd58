"""Marks for tests that take minutes: they run if an environment variable asks for them."""

import os

import pytest


def on_request(variable: str) -> pytest.MarkDecorator:
    """Skips unless that variable is in the environment."""
    return pytest.mark.skipif(variable not in os.environ, reason=f"feature: enabled by {variable}=1")


HEALTHY_200 = on_request("KICKWATCH_200_HEALTHY")
FRESH_DEBIAN_13 = on_request("KICKWATCH_FRESH_DEBIAN_13")
