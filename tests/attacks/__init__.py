"""What one tenant tries to do with the rows of another."""
