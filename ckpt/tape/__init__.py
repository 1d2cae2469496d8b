"""The NumPy front end: Values, ops, checkpoint, trace, execute."""

from ckpt.tape import ops
from ckpt.tape.core.value import _install_methods, _install_operators, _install_protocols

_install_protocols()
_install_operators()
_install_methods()

__all__ = ["ops"]
