"""What users import in their own programs: torch alone, and transformers where they have it. No service, no Ray."""
