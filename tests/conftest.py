"""What has to stand before any test module is imported."""

import os

from hypothesis import settings

os.environ.setdefault("KERAS_BACKEND", "jax")
# how long an example takes says more about the machine's load than about us
# the same examples in every run, so that a change is judged by what it did; the other profile goes looking
settings.register_profile("usual", deadline=None, max_examples=40, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=1000)  # pytest --hypothesis-profile=thorough
settings.load_profile("usual")
