"""What is looked at."""
