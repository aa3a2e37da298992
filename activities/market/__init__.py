"""Where the paper venue takes its bars from."""
