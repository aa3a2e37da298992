"""The paper venue's rules, pure: which orders it takes, when and at what price they fill, and what an account must be able
to carry.

`book.py` holds the values, `refusals.py` the exchange's filters and codes, `margin.py` what the money allows, `matching.py`
new and resting orders, `funding.py` and `liquidation.py` what a bar does to positions. `advance.py` moves a whole account
on by one bar, `view.py` shows it. The effects on money are in `domain/accounting.py`. For people: docs/paper-venue.md.
"""
