"""Where an equation comes from, in the user's own files."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import Any

import jax
from jax.extend import source_info_util

_LIBRARY = os.path.dirname(os.path.abspath(jax.__file__)) + os.sep
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_WRAPPED = re.compile(r"(?:jvp|transpose|vmap|checkpoint|rematted_computation)\(([^()]*)\)")

source_info_util.register_exclusion(_OURS)


@lru_cache(maxsize=4096)
def _of_users(filename: str) -> bool:
    return not filename.startswith((_LIBRARY, _OURS, "<frozen"))


def source_of(info: Any) -> str:
    """``model.py:7``: the innermost line that is neither JAX's nor ours."""
    if info.traceback is None:
        return ""
    for frame in info.traceback.frames:
        if _of_users(frame.file_name):
            return f"{os.path.basename(frame.file_name)}:{frame.line_num}"
    return ""


def scope_of(info: Any) -> str:
    """The `jax.named_scope`s around it, without what differentiation wrote around them."""
    text = str(info.name_stack)
    while (shorter := _WRAPPED.sub(r"\1", text)) != text:
        text = shorter
    return text


def written_elsewhere(jaxpr: Any) -> bool:
    """Is this the body of a function of JAX's own, whose lines would tell a user nothing? Traced
    once, it also bears the line of its first call, wherever it is called again."""
    found = getattr(jaxpr, "debug_info", None)
    source = str(getattr(found, "func_src_info", "") or "")
    return _LIBRARY in source
