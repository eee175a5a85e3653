"""Services behind the page, the reports and the metrics: they read and change nothing."""
