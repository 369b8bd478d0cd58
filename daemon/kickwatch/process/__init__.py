"""What this process needs of Python and Linux: signals, cancellation, standard streams, whole files, sd_notify.

Imports `errors`; nothing that knows of containers or kernels.
"""
