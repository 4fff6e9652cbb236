"""Stopping on demand: SIGTERM and SIGUSR1 (Slurm's warning) ask a run to save and leave; all processes do so together.

The signal may reach one process only. At the end of every step, and of every batch of an evaluation, the processes tell
each other whether they were asked. Ctrl-C ends a run where it is, without saving, and is never lost.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Iterator

# JAX is imported where it is used: a signal may come while it is being imported.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
AGAIN_SEC = 0.1

_asked = False
_answer = None  # of the last `check_stop`: whether any process had been asked by then


class Stopped(Exception):  # noqa: N818
    """The run was asked to stop. What is worth keeping has been saved when this arrives in `main`."""


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Inside, the signals set a mark instead of ending the process, and a Ctrl-C that was swallowed comes again.

    Python drops what is raised in a callback that nobody waits for (JAX adds one to each collection of garbage, and
    compiling collects often), a Ctrl-C of that moment included.
    """
    global _asked, _answer
    before = {one: signal.signal(one, _mark) for one in SIGNALS}
    report, sys.unraisablehook = sys.unraisablehook, _interrupt_again
    try:
        yield
    finally:
        sys.unraisablehook = report
        for one, handler in before.items():
            signal.signal(one, handler)
        _asked, _answer = False, None


def check_stop() -> None:
    """Raises Stopped in all processes if one of them was asked to stop. All must call it equally often.

    With several processes, each call starts to ask the others and looks at the answer to the call before: so none waits
    for the device, and a request is obeyed one call later.
    """
    import jax

    global _answer
    if jax.process_count() == 1:
        stop = _asked
    else:
        stop = _answer is not None and bool(_answer)
        _answer = _any(_asked)
    if stop:
        raise Stopped


def _mark(number, frame) -> None:
    global _asked
    _asked = True


def _interrupt_again(unraisable) -> None:
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)
        return
    main = threading.main_thread().ident
    again = threading.Timer(AGAIN_SEC, signal.pthread_kill, (main, signal.SIGINT))  # later, when the callback has ended
    again.daemon = True
    again.start()


def _any(mine: bool):
    """Starts to find out whether any process says True."""
    import jax
    import numpy as np

    reduce, sharding = _reduction()
    flags = np.full(jax.device_count(), mine)
    return reduce(jax.make_array_from_callback(flags.shape, sharding, lambda index: flags[index]))


@functools.cache
def _reduction():
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    mesh = Mesh(np.array(jax.devices()), ("all",))
    return jax.jit(jnp.any, out_shardings=NamedSharding(mesh, P())), NamedSharding(mesh, P("all"))
