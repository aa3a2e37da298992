"""The vocabulary that everything else uses: plain values, and the rules that need nothing else.

| file | holds |
|---|---|
| `market.py`, `symbols.py` | what is read from a venue: bars, positions, open orders, account, rules; names of symbols |
| `instructions.py`, `orders.py` | what is sent to a venue, and what became of it |
| `proposals.py`, `quotes.py` | what agents suggest, and their limit orders |
| `agents.py`, `arbitration.py` | agents that are left out after failures; how one proposal is chosen |
| `assessment.py` | the result of a limits check |
| `decisions.py` | rows of the decision log |
"""
