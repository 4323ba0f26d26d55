"""The version of the event vocabulary; it rises when an event type or version is added."""

SCHEMA_VERSION = 2
