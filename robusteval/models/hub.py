"""Where timm's weights lie on this machine, and where they come from: Hugging Face, for a few a plain address."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from robusteval.downloads import download
from robusteval.errors import UserError

Config = Mapping[str, Any]

# timm's repositories hold the first; older ones, and other people's, the second.
_FILES = ("model.safetensors", "pytorch_model.bin")


def published(config: Config) -> bool:
    """Return whether timm names a place for these weights."""
    return bool(config.get("hf_hub_id") or _url(config))


def cached(config: Config) -> Path | None:
    """Return the weights if they are on this machine: in Hugging Face's cache, or among torch's checkpoints."""
    from huggingface_hub import try_to_load_from_cache

    if config.get("hf_hub_id"):
        for name in _FILES:
            found = try_to_load_from_cache(config["hf_hub_id"], name)
            if isinstance(found, str):
                return Path(found)
    return next((path for path in _own_places(config) if path.is_file()), None)


def places(config: Config) -> str:
    """Return in words where ``cached`` looks."""
    from huggingface_hub import constants

    own = " or ".join(str(path) for path in _own_places(config))
    repository = config.get("hf_hub_id")
    return f"Hugging Face's cache ({constants.HF_HUB_CACHE}: {repository}) or {own}" if repository else own


def fetch(config: Config) -> Path:
    """Download the weights among torch's checkpoints and return the path.

    Raises UserError where HF_HUB_OFFLINE forbids it or the download fails.
    """
    from huggingface_hub import constants, hf_hub_url

    path = _own_places(config)[0]
    if not config.get("hf_hub_id"):
        return download(str(_url(config)), path)
    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"HF_HUB_OFFLINE is set, and the weights are not in {places(config)}; unset it to download them"
        )
    return download(hf_hub_url(config["hf_hub_id"], _FILES[0]), path)


def _own_places(config: Config) -> list[Path]:
    folder = Path(torch.hub.get_dir(), "checkpoints")
    names = []
    if config.get("hf_hub_id"):
        names.append(f"{config['hf_hub_id'].replace('/', '--')}{Path(_FILES[0]).suffix}")
    if url := _url(config):
        names.append(Path(urlsplit(url).path).name)
    return [folder / name for name in names]


def _url(config: Config) -> str | None:
    # A custom_load address holds the arrays of another framework under names that timm's networks do not have.
    return None if config.get("custom_load") else config.get("url")
