"""Trading agents that come with AIS."""
