"""Who is connected here, and how a packet reaches them."""
