"""The next step's batch, read while this step computes, so that storage is waited for only where it is the slower one.

One thread, one step ahead: a step that is not the one expected (after a skip) is read when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from trainer.shards import Samples


class ReadAhead:
    """Batches by step number, from `read`."""

    def __init__(self, read: Callable[[int], Samples], steps: int) -> None:
        self.read, self.steps = read, steps
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self.expected: tuple[int, Future[Samples]] | None = None

    def batch(self, step: int) -> Samples:
        """The batch of `step`, once it is there. Raises what `read` raises."""
        expected, self.expected = self.expected, None
        ready = expected[1] if expected and expected[0] == step else self.thread.submit(self.read, step)
        samples = ready.result()
        if step + 1 < self.steps:
            self.expected = step + 1, self.thread.submit(self.read, step + 1)
        return samples

    def close(self) -> None:
        """Let a read under way come to its end."""
        self.thread.shutdown(cancel_futures=True)
