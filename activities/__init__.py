"""Everything through which AIS touches the world: the venue, the market, the agents and the database.

| file | holds |
|---|---|
| `callers.py` | refuses an activity that the desk's own coordinator has not called |
| `calls.py`, `options.py` | what the workflow calls, and with which time limits and retries |
| `observe.py`, `choosing.py`, `bar_summaries.py`, `clocks.py` | a cycle's reading and its choice |
| `act.py`, `clearance.py`, `failures.py` | cancels, orders, whether an order may still go out, and errors of a venue |
| `record.py`, `attributes.py` | writes rows and the latch; asks for Temporal's search attributes |
| `scope.py`, `wrong_worker.py`, `standby.py`, `claiming.py` | whether this worker may serve the desk |
| `books.py`, `auditing.py`, `audit_watch.py`, `mirror.py` | no activities: what a worker runs beside them |
| `metrics.py`, `metrics_port.py`, `fresh_gauge.py` | the worker's metrics |
| `venues/`, `market/`, `agents/` | the venues, the paper venue's markets, the trading agents |

Of our packages, `activities` imports only `domain` and `storage` (`tests/house/test_imports.py`). What it needs from elsewhere,
such as the question to the coordinator, `worker.py` passes in.
"""
