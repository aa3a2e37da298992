"""The audit chain in the database: `chain` writes it, `verifying` checks it, `checkpoints` signs it, `exporting` copies it into a
file (`files`, `manifests`), which `file_checking` checks. `watching` is the running verification: it checks chains bit by bit
(`stretches`), and looks for rows of the tables that are in no chain (`unproved`).

Queries read `decisions` and `instructions`; `audit` proves them.
"""
