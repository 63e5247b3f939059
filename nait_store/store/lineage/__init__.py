"""What versions were made from and what was made from them; and making them again."""
