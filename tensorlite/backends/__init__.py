"""Arrays: devices, kernels and threads. Nothing here knows of gradients."""
