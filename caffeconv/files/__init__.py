"""Bytes on disk: whole or not at all, unchanged while they are read, hashed, and protobuf's wire format."""
