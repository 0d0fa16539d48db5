"""What every page that the project writes is made of: its frame, addresses that open in a browser, headers."""
