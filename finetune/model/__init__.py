"""The network: the door to timm's models, freezing by depth, features, and what is saved."""
