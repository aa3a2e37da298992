"""The vocabulary of AIS and every decision it makes: pure functions and frozen values, no clock, no randomness, no I/O."""
