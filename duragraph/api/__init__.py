"""The HTTP API: one file a resource, each with `routes(deps)` giving (path, resource, suffix)."""
