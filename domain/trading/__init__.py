"""The vocabulary: markets, instructions, orders, proposals, agents' votes, decisions and assessments, as values."""
