"""Tests of iscsi_twisted, for trial; those with real clients are in C{tests/interop}."""

from hypothesis import HealthCheck, settings

# Tests of conversations are inherited, to be run again with the stream in other segments; and how long an
# example takes is the machine's affair.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.differing_executors])
settings.load_profile("tests")
