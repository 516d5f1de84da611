"""The work of the nodes: each module is called by execute() of the node in schema/ of the same name."""
