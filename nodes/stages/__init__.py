"""What each node's execute() calls, in a module of the same name: from sockets and widgets to the core, and back."""
