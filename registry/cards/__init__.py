"""The quality card of a profile: how it is measured, and how it is shown."""
