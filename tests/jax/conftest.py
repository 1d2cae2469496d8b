"""With JAX these tests run on CPU; without it their files skip themselves."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
