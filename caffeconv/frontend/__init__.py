"""Files → `NetDef` → `Graph` → bound graph; the deploy form; shapes at other inputs; which axes are open."""
