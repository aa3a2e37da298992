"""Trading agents: each looks at the market and proposes, and none of them can stop the others."""
