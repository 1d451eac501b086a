"""Options that commands share, as typed values."""
