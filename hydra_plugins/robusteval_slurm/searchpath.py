"""The user's own configuration files, beside the package's: ``~/.config/robusteval``, such as a cluster's defaults."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from robusteval.groups import own_folder


class OwnFolder(SearchPathPlugin):
    """Appends the folder, so that the package's files win where a name is in both."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder where this is robusteval's configuration, not another application's."""
        ours = any("robusteval.conf" in (element.path or "") for element in search_path.get_path())
        if ours and (folder := own_folder()) is not None:
            search_path.append(provider="robusteval-user", path=f"file://{folder}")
