"""From a recipe (YAML) to specs. Every mistake is reported with file and line."""
