"""The real venue: Aster, through its own MCP server (docs/venue.md)."""
