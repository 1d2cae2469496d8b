"""Will it fit? See `ckpt.models.memory`."""

from ckpt.models.memory import available_nbytes, require

__all__ = ["available_nbytes", "require"]
