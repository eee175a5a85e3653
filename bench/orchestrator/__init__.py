"""What each endpoint costs, against a yardstick and at growing sizes: see __main__."""
