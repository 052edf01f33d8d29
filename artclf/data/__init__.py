"""What is known of pictures before a network sees them."""
