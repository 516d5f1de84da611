"""One file a node: define_schema, and an execute() that unpacks, makes one call into stages/, and returns."""
