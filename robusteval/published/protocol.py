"""The radii at which robustness is usually quoted, by the family of a dataset."""

from types import MappingProxyType

# As on RobustBench's boards; on MNIST that of Madry et al. 2018, https://arxiv.org/abs/1706.06083; in L1 that of Croce
# and Hein 2021, https://arxiv.org/abs/2103.01208.
_USUAL = MappingProxyType(
    {
        ("mnist", "linf"): 0.3,
        ("cifar10", "linf"): 8 / 255,
        ("cifar10", "l2"): 0.5,
        ("cifar10", "l1"): 12.0,
        ("cifar100", "linf"): 8 / 255,
        ("cifar100", "l2"): 0.5,
        ("imagenet", "linf"): 4 / 255,
    }
)


def family(dataset: str) -> str:
    """Return the dataset that a registered name is a part of: cifar10 of cifar10_samples, mnist of mnist_5k."""
    return dataset.removesuffix("_samples").removesuffix("_5k")


def usual(dataset: str, norm: str) -> float | None:
    """Return the usual radius for a dataset's registered name, None where there is none."""
    return _USUAL.get((family(dataset), norm))
