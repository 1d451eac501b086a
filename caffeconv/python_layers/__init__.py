"""The user's Python layers: module → object; shapes → shapes, arrays → arrays."""
