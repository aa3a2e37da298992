"""Speed, measured as ratios against a floor of the same run, since absolute times on shared machines mean little."""
