"""What the analyses give back."""
