"""Hydra's config loader, but quick for many configs: what groups compose to is worked out once.

Hydra reads and merges two dozen files again for each config, a quarter of a second. Most arms of a sweep differ in
values alone, as their seeds, which take a few milliseconds to set in a copy.
"""

import pickle
from collections.abc import Sequence

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException


class GroupsOnce(ConfigLoaderImpl):
    """Composes what Hydra's own loader would, and never reads a file again, even if it has changed since."""

    def __init__(self, loader: ConfigLoader) -> None:
        """Takes the search path of `loader`, which composes as it did before."""
        super().__init__(loader.get_search_path())
        self.files: dict[tuple[str | None, ...], CachingConfigRepository] = {}
        self.composed: dict[tuple[str | None, ...], bytes] = {}

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Returns a config that nothing else holds; raises what Hydra raises."""
        parsed = OverridesParser.create().parse_overrides(overrides)
        if run_mode != RunMode.RUN or any(override.is_sweep_override() for override in parsed):
            return super().load_configuration(
                config_name, overrides, run_mode, from_shell, validate_sweep_overrides
            )
        own = [override for override in parsed if not override.is_hydra_override()]
        values = self.values_among(own, config_name, [o for o in parsed if o.is_hydra_override()])
        others = lines([override for override in parsed if override not in values])
        key = (config_name, *others)
        if key not in self.composed:
            composed = super().load_configuration(config_name, others, run_mode, from_shell)
            self.composed[key] = pickle.dumps(composed)
        composed = pickle.loads(self.composed[key])
        assert isinstance(composed, DictConfig)
        try:
            self._apply_overrides_to_config(values, composed)
        except OmegaConfBaseException as error:
            raise ConfigCompositionException() from error
        composed.hydra.overrides.task = lines(own)
        how = composed.hydra.job.config.override_dirname
        name = get_overrides_dirname(own, how.exclude_keys, item_sep=how.item_sep, kv_sep=how.kv_sep)
        composed.hydra.job.override_dirname = name
        return composed

    def values_among(
        self, overrides: Sequence[Override], config_name: str | None, of_hydra: Sequence[Override]
    ) -> list[Override]:
        """Returns those that set a key and choose no group's option. Hydra's own may say where groups are."""
        key = (config_name, *lines(of_hydra))
        if key not in self.files:
            _, self.files[key] = self._parse_overrides_and_create_caching_repo(config_name, lines(of_hydra))
        exists = self.files[key].group_exists
        return [o for o in overrides if isinstance(o.value(), dict) or not exists(o.key_or_group)]


def without_hydra(composed: DictConfig) -> DictConfig:
    """Returns a copy of a config without Hydra's own settings, whose keys keep their types."""
    copied = pickle.loads(pickle.dumps(composed))
    assert isinstance(copied, DictConfig)
    with open_dict(copied):
        copied.pop("hydra", None)
    return copied


def lines(overrides: Sequence[Override]) -> list[str]:
    """Returns overrides as they were typed."""
    return [str(override.input_line) for override in overrides]
