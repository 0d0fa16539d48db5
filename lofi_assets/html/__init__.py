"""What every page that the project writes is made of: its frame, and addresses that open in a browser."""
