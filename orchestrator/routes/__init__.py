"""HTTP to services and back: one short function an endpoint, no logic."""
