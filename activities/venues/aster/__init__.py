"""The real venue, Aster, through its MCP server.

| file | holds |
|---|---|
| `access.py`, `build.py`, `transports.py`, `session.py` | the connection to the server |
| `caller.py`, `operation.py`, `turns.py`, `backoff.py`, `signing.py` | a call: urgency, turn, pauses, refused signatures |
| `answers.py`, `results.py` | reads what a tool answered |
| `venue.py` | the venue: implements `activities/venues/port.py` |
| `account.py`, `readings.py` | the account, read so that it is a fact |
| `market_data.py`, `markets.py`, `rules.py` | prices, bars, books and trading rules |
| `orders.py`, `sending.py`, `last_look.py`, `single_cancel.py` | orders: what is sent, the last check, the outcome |
| `statements.py`, `allowance.py` | trades and ledger, for a live desk's books |
| `market.py` | the real market for the paper venue |
"""
