"""Planning: strategies, objectives, constraints and certificates."""
