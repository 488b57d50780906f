"""Augmentation of training images; the only file that imports albumentations."""
