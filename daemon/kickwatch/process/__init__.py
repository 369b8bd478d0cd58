"""How this process uses Python and Linux: signals, cancellation, standard streams, atomic files, sd_notify.

Imports `errors`; nothing that knows about containers or kernels.
"""
