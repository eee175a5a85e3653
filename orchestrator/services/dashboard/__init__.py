"""Services behind the page, the reports and the metrics. They only read."""
