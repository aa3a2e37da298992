"""Trading agents: each looks at the market and proposes, and none of them can stop the others.

| file | holds |
|---|---|
| `port.py` | what an agent gets, and what it answers |
| `catalogue.py` | which agents are installed, and which a desk uses |
| `runner.py`, `pool.py` | calls agents: the interface, and one process per agent |
| `child.py`, `forkserver.py` | what runs in an agent's process |
| `reply.py`, `round.py` | checks one answer; collects the answers of a cycle |
| `momentum.py`, `mean_reversion.py`, `volatility_breakout.py`, `funding_rate.py`, `quoter.py` | the built-in agents |
"""
