"""Notifications: what people are told, by mail and otherwise."""
