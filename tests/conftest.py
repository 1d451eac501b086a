"""What has to stand before any test module is imported."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
