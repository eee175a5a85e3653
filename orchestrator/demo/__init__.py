"""The search agent that needs no LLM, and the chart of what it found. Speaks HTTP only."""
