"""Venues: adapters to where instructions are executed.

| file | holds |
|---|---|
| `port.py` | what every venue must offer, and the errors of a venue |
| `build.py` | builds the venue of a mode: a new exchange becomes a case here |
| `paper.py` | the built-in venue, in PostgreSQL; its rules are in `domain/paper/` |
| `aster/` | the real venue |
| `shadow.py` | reads the real venue, and sends it nothing |
| `arriving.py` | when an order that a venue has never seen can no longer arrive there |
| `call_observer.py` | how a venue reports its calls to the metrics |

Every venue must pass `tests/venues/test_contract.py`.
"""
