"""The GPU worker: a daemon per GPU that claims experiments over HTTP and trains them."""
