"""Settings of every test; it must never hold fixtures of one package's tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No deadline: the first example of a graph test compiles operators, and machines differ.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", parent=settings.get_profile("default"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
