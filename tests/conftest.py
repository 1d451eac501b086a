"""What has to stand before any test module is imported."""

import os

from hypothesis import settings

os.environ.setdefault("KERAS_BACKEND", "jax")
# how long an example takes says more about the machine's load than about us
settings.register_profile("any speed", deadline=None)
settings.load_profile("any speed")
