"""What holds for every test."""

from hypothesis import HealthCheck, settings

# Two test processes share two cores, with whatever else the machine does: slowness is not a failure here.
settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")
