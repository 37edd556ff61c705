"""What demonstrations and experiments begin with, made offline: text, speech, small models. No job imports it."""
