"""Services: load, let the rules judge, apply. They know the store and the files, never HTTP."""
