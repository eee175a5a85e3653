"""What the speed benchmarks share: servers to start, a lean HTTP client, medians and a table."""
