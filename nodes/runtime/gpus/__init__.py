"""One module a vendor: which GPUs of theirs this machine has, asked of the driver or of the vendor's own library.

Each has `devices(machine)`, which returns an empty tuple where there is none that can compute.
"""
