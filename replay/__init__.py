"""`ais replay`: what a desk would have done over a file of bars, with the desk's own code and no Temporal."""
