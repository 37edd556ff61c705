"""What is differentiated: student and losses as one module."""
