"""Variety lives here: each component is a section of the recipe with one verb.

Importing a section costs no torch, timm, scikit-learn or albumentations: what is heavy is imported
inside the verb. The foot of each file is the table of everything that exists.
"""
