"""What is said in HTTP."""
