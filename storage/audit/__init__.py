"""The audit chain in the database: `chain` writes it, `verifying` checks it, `checkpoints` signs it, `exporting` hands it out
as a file (`files`, `manifests`), which `file_checking` checks. `watching` verifies all the time: chains bit by bit (`stretches`),
and rows of the tables that no chain has (`unproved`).

`decisions` and `instructions` are what one queries; `audit` is what one believes.
"""
