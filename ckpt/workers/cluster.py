"""The workers of a Dask scheduler, as an Executor."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from ckpt.errors import MissingExtraError, WorkersError
from ckpt.text import sentence

CONNECT_SECONDS = 10.0


@contextmanager
def connected(address: str) -> Iterator[Executor]:
    """Those of the scheduler at ``address``. WorkersError where none answers, or has none."""
    try:
        distributed: Any = import_module("distributed")
    except ModuleNotFoundError:
        raise MissingExtraError("Dask's distributed", "dask", "a cluster") from None
    with _quiet():
        try:
            client = distributed.Client(
                address, timeout=CONNECT_SECONDS, set_as_default=False, name="ckpt"
            )
        except Exception as error:
            raise WorkersError(
                f"no Dask scheduler answers at {address}: {sentence(error)}"
            ) from None
        try:
            if not client.scheduler_info()["workers"]:
                raise WorkersError(
                    f"the Dask scheduler at {address} has no workers; start some with: "
                    f"dask worker {address}"
                )
            there = client.get_executor(pure=False)
            try:
                yield there
            finally:
                there.shutdown(wait=False)
        finally:
            with suppress(Exception):  # it may be gone, which was said by then
                client.close(timeout=CONNECT_SECONDS)


@contextmanager
def _quiet() -> Iterator[None]:
    """What goes wrong with a connection is said by those that wait for it, and not logged, too,
    with a traceback, by Dask's threads and by the loop that they run in."""
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado.application")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def worker() -> Any:
    """The Dask worker that has given this thread a task; None: there is none."""
    distributed = sys.modules.get("distributed")
    try:
        return distributed and distributed.get_worker()
    except ValueError:
        return None


def wanted(worker: Any) -> Callable[[], bool]:
    """Does anyone still wait for the task of this thread of the ``worker``? Without one yes."""
    if worker is None:
        return lambda: True
    key = worker.get_current_task()

    def executing() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state == "executing"

    return executing
