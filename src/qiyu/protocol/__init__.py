"""Bytes to packets and back: no socket, no clock, no task (docs/protocol.md)."""
