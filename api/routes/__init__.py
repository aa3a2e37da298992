"""The routes, one module for each noun: control, reports, public."""
