"""Alerting: rules over readings and silence, and who hears of them."""
