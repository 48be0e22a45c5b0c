"""The U-Net, the losses, and the saved model package."""
