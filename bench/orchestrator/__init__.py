"""What each endpoint costs, against a yardstick, raw Redis, scanning, and MLflow: see __main__."""
