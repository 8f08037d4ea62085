"""Who may log in: accounts, passwords, names, and how often somebody may guess."""
