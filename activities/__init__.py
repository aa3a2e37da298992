"""Everything through which AIS touches the world: the venue, the market, the agents and the database."""
