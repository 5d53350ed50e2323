"""Revisions of the gateway's own tables, the oldest first; a service's own stand in a package of that service."""
