"""Names of the classes of well-known datasets, in the order of their labels."""

from functools import cache

DIGITS = tuple("0123456789")

FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle
bowl boy bridge bus butterfly camel can castle caterpillar cattle
chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
plain plate poppy porcupine possum rabbit raccoon ray road rocket
rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100 = tuple(_CIFAR100.split())


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the 1000 WordNet ids of ILSVRC 2012 in the order of the labels, as timm ships them."""
    from timm.data.imagenet_info import ImageNetInfo  # timm takes a second to import

    return tuple(ImageNetInfo().label_names())


@cache
def imagenet_names() -> tuple[str, ...]:
    """Return the 1000 descriptions ("tench, Tinca tinca") of ILSVRC 2012 in the order of the labels."""
    from timm.data.imagenet_info import ImageNetInfo

    descriptions = ImageNetInfo().label_descriptions()
    return tuple(str(description) for description in descriptions)
