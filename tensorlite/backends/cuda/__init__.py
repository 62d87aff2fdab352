"""Arrays on an NVIDIA GPU, by CuPy. This is the only folder that imports CuPy."""
