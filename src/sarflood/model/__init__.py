"""The U-Net, the losses, and the saved model package."""

WEIGHTS, MANIFEST = "weights.safetensors", "model.json"  # files of a model package
