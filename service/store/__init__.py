"""The truth about jobs: the database, its tables, every read and every write."""
