"""What clients saw, written down as it happens (`record`), and judged by what they were promised (`judge`)."""
