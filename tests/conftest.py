"""How Hypothesis makes its examples: the same in every run, however long a busy machine takes to make and try them."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")
