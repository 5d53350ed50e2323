"""What is measured, against whom, and how to measure it again."""
