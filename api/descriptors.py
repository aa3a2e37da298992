"""File descriptors: raises their limit, and reserves some that no connection gets.

Measured: 1,100 connections that never finished a request used up the 1,024 descriptors of a process, and every kill
over HTTP was reset for as long as they stayed.
"""

import resource
from typing import NamedTuple

# More connections than this would only cost memory: each may hold a head of 64 KiB.
MOST_CONNECTIONS = 4_096
MOST_WAITING = 2_048
# The listening socket, Temporal, PostgreSQL, logs, files of metrics, and connections that are just being closed.
OWN = 128
_ENOUGH = MOST_CONNECTIONS + MOST_WAITING + OWN


class ConnectionBudget(NamedTuple):
    """How many connections may be open, and how many may wait to be accepted; all of them together still fit."""

    connections: int
    waiting: int


def raise_limit() -> ConnectionBudget:
    """Raises the soft limit of this process and its children as far as useful; returns the resulting budget."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else _ENOUGH
    if soft != resource.RLIM_INFINITY and soft < most:
        soft = max(soft, min(most, 2 * _ENOUGH))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return budget_for(_ENOUGH if soft == resource.RLIM_INFINITY else soft)


def budget_for(descriptors: int) -> ConnectionBudget:
    """The connections that fit into `descriptors`. A burst is accepted before anything can be closed for it."""
    waiting = min(MOST_WAITING, max(descriptors // 4, 1))
    return ConnectionBudget(max(min(MOST_CONNECTIONS, descriptors - waiting - OWN), 16), waiting)
