"""Trading agents: each looks at bars and proposes, and none of them can stop the others."""
