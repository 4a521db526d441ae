"""How many connections a test may hold both ends of."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

SPARE = 500
"""Descriptors for all else."""


@contextmanager
def both_ends(most: int) -> Iterator[int]:
    """`most` if the hard limit allows it, or as many as it does; the soft limit is raised meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * most + SPARE
    allowed = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
    try:
        yield (allowed - SPARE) // 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
