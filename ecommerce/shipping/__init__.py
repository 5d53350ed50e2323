"""Shipping: parcels that are packed, leave and arrive."""
