"""What waits: sockets and the clock. The only code that knows them."""
