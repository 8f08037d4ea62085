"""What is kept: the database, its tables, and one repository a noun."""
