"""How many files a process may hold open, which bounds the runs of a stack."""

from __future__ import annotations

import resource

A_MEMBER, OTHERS = 2, 256
"""Files that a run of a stack holds open, its lock and its log, and what the process needs besides."""


def allow_many_files() -> None:
    """Let this process hold as many files open as the system admits."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_members() -> int | None:
    """The most runs that a process can carry out together; None: no limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if hard == resource.RLIM_INFINITY else max(1, (hard - OTHERS) // A_MEMBER)
