"""Pure rules on values: what is kept, how the search adapts, what is suggested and reported."""
