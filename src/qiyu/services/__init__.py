"""What qiyu does: the rules, apart from packets above and tables below."""
