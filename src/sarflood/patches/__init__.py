"""The patch store, its statistics, leak-free splits, the loader and augmentation."""
