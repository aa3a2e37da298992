"""Every subject, in the order in which `make bench` measures them."""

from bench import (
    audit,
    control,
    cycle,
    decisions,
    hanging,
    keys,
    kill,
    memory,
    pages,
    portfolio,
    prices,
    replay,
    slow,
    strangers,
)
from bench.peers import subject as peers
from bench.subject import Subject

_MODULES = (
    control,
    hanging,
    strangers,
    kill,
    slow,
    cycle,
    memory,
    replay,
    prices,
    keys,
    pages,
    decisions,
    portfolio,
    audit,
    peers,
)
SUBJECTS: dict[str, Subject] = {module.SUBJECT.name: module.SUBJECT for module in _MODULES}
