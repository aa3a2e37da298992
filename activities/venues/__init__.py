"""Venues: adapters to where instructions are executed."""
