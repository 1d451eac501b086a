"""`Graph` → `Graph`: layers folded and dropped, products as convolutions, parts of a net."""
