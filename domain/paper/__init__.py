"""The paper venue's rules, pure: what an order may be, when it fills and at what price, and what an account has to bear.

`book.py` holds the values, `refusals.py` the exchange's filters and codes, `margin.py` what the money allows, `matching.py`
new and resting orders, `funding.py` and `liquidation.py` what a bar does to positions, and `advance.py` moves a whole
account on by one bar. What it does to the money is in `domain/accounting.py`. docs/paper-venue.md tells it for people.
"""
