"""The worker process: events of the partitions it leases, to the functions of one service."""

from gateway.worker.process import Worker

__all__ = ["Worker"]
