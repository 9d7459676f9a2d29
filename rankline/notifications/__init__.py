"""Notifications of what happens to models: webhooks and e-mail, after the event is in the registry."""
