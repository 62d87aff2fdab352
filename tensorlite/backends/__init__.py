"""Arrays: devices, kernels, threads. No module here depends on gradients."""
