"""The HTTP interface: routes, their schemas, errors."""
