"""What an evaluation needs and is not there. Apart from the engine, whose imports take seconds."""

from robusteval import region
from robusteval.config import Config
from robusteval.errors import UserError


def refuse_missing(config: Config) -> None:
    """Raise UserError where the attack cannot run here or the data are not there.

    Of weights that are not there either the sentence on the data speaks too; alone they are no reason to stop: loading
    fetches them where it can, and says what is missing where not.
    """
    if (sentence := config.attack.refusal(config.threat.norm)) is not None:
        raise UserError(sentence)
    if (sentence := region.missing(config.threat.region)) is not None:
        raise UserError(sentence)
    if (sentence := config.dataset.missing()) is not None:
        raise UserError("\n            ".join([sentence, *filter(None, [config.model.missing()])]))
