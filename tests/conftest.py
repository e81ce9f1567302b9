"""What all tests share."""

from hypothesis import HealthCheck, settings

# Two slow cores must not turn a slow example into a failure; the same examples every time.
settings.register_profile(
    "quick", deadline=None, derandomize=True, max_examples=40, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
settings.load_profile("quick")
