"""Decisions only: nothing in this folder waits, reads a clock, rolls a die or opens a socket."""
