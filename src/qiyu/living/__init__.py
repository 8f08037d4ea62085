"""Living rooms: opened, listed and closed, what happens in them, and what was said there."""
