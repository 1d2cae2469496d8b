"""The NumPy front end: Values, ops, checkpoint, trace, execute."""

from ckpt.tape import ops
from ckpt.tape.install import install

install()

__all__ = ["ops"]
