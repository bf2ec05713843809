"""An embedded Triton Inference Server: the binary of the nvidia-pytriton wheel, run as it is."""
