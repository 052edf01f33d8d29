"""What learns and answers."""
