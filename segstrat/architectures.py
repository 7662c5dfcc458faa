"""Names of all backbones and models, defined here once; importing them needs no torch."""

BACKBONES = {
    "resnet18": "resnet",
    "resnet34": "resnet",
    "resnet50": "resnet",
    "resnet101": "resnet",
    "vgg16": "vgg",
    "vgg16_bn": "vgg",
    "alexnet": "alexnet",
    "squeezenet1_1": "squeezenet",
    "sunet64": "sunet",
    "sunet128": "sunet",
    "sunet7128": "sunet",
}
"""Family of each backbone; `segstrat.models.FAMILIES` has its class."""

FCN_STRIDES = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8}
"""Stride of the finest map that an FCN head uses."""

SUNETS = tuple(name for name, family in BACKBONES.items() if family == "sunet")
"""A SUNet is a model and its own backbone."""

FCN_BACKBONES = tuple(name for name in BACKBONES if name not in SUNETS)
MODELS = (*FCN_STRIDES, *SUNETS)
