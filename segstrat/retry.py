"""Waits for storage that does not answer for a while, up to a bound, and says so."""

import sys
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Storage that has answered before is given so long to answer again, other storage the shorter time.
PATIENCE_SECONDS = 120.0
FIRST_SECONDS = 15.0
LONGEST_PAUSE = 8.0
# In pyarrow's messages of errors that pass; a missing bucket, a wrong key or a full disk do not.
TRANSIENT = (
    "network_connection",
    "curlcode",
    "timeout",
    "timed out",
    "slow_down",
    "throttling",
    "service_unavailable",
    "internal_failure",
    "http response code 500",
    "http response code 503",
)


class Patience:
    """Repeats operations on one storage while it does not answer.

    Args:
        name: of the storage, for the messages.
        say: prints a message.
        sleep, clock: replaced in tests.
    """

    def __init__(
        self,
        name: str,
        *,
        say: Callable[[str], None] = lambda message: print(message, file=sys.stderr, flush=True),
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._say = say
        self._sleep = sleep
        self._clock = clock
        self._answered = False

    def call(self, operation: Callable[[], T]) -> T:
        """The result of an operation, which is repeated while it fails for a reason that passes.

        Raises:
            OSError: what the operation raised last, once the patience is used up; at once for errors that
                do not pass.
        """
        start, pause = self._clock(), 1.0
        waiting = False
        while True:
            try:
                result = operation()
            except OSError as error:
                bound = PATIENCE_SECONDS if self._answered else FIRST_SECONDS
                if not is_transient(error) or self._clock() - start >= bound:
                    # An answer, even if it is an error.
                    self._answered |= not is_transient(error)
                    raise
                if not waiting:
                    waiting = True
                    self._say(f"{self._name} does not answer; trying again for up to {bound:.0f} s ({error})")
                self._sleep(min(pause, LONGEST_PAUSE))
                pause *= 2
            else:
                self._answered = True
                if waiting:
                    self._say(f"{self._name} answers again after {self._clock() - start:.0f} s")
                return result


def is_transient(error: OSError) -> bool:
    """Whether an error of a remote file system may pass by itself."""
    return any(word in str(error).lower() for word in TRANSIENT)
