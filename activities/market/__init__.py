"""Where the paper venue takes its bars from.

| file | holds |
|---|---|
| `port.py`, `build.py` | what a market must offer; builds the one that a setting names |
| `simulated.py`, `replay.py` | the two markets: made up from a seed, or read from files |
| `funding.py`, `lines.py`, `steps.py` | funding rates, files line by line, and rules for symbols whose own are unknown |

Aster's market, the third, is `activities/venues/aster/market.py`.
"""
