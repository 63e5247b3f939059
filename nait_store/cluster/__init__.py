"""The same work on many machines, scheduled by Ray; nothing else imports Ray."""
