"""The only user of Redis: keys, Lua verbs, and the values built from what they answer."""
