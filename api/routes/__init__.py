"""One module a noun: control, reports, and what is public."""
