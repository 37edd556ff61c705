"""What ``job:``, ``models:/``, directories and hub ids mean right now."""
