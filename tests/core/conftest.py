"""How Hypothesis searches here."""

from hypothesis import HealthCheck, settings

# A busy machine is no finding: time is judged where a test says so, in CPU seconds.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
