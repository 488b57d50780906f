"""The embedded example: a small backbone that ships with the package, and digits it never saw.

The starter backbone (`starter/`, a timm local folder) was trained by this tool on letters and on
the digits zero to four: `python -m finetune.demo.starter`. The example fine-tunes it on five images
each of five to nine, and trains the same network from random weights beside it. No network needed.
"""
