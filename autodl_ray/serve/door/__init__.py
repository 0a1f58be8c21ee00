"""The service's own front door on one machine: HTTP from outside, frames over a Unix socket to the replicas."""
