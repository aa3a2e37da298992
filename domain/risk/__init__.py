"""Limits of a portfolio, and the guards before an order.

`limits.py` holds the numbers, `measures.py` the formulas, `assessing.py` checks a reading, `guards.py` checks an order, and
`reducing.py` sizes the order that reduces risk. The result of a check is in `domain/trading/assessment.py`. For people:
docs/risk.md.
"""
