"""Services that tell an agent what is known: suggestions, similar ideas, digest, brief."""
