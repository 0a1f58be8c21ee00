"""The operations of the catalogue: one module a family, or a part of one."""
