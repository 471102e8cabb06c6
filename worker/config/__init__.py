"""Settings: what there is to set (`model`), where it comes from (`layers`), what is wrong with it (`read`)."""

from worker.config.model import (
    DEFAULT_LANE,
    Anthropic,
    Config,
    Http,
    Intake,
    Lane,
    Log,
    Park,
    Poll,
    Redis,
    SinkSettings,
    Submit,
)
from worker.config.read import ConfigError, find_config, load_config
from worker.config.secret import Secret, redact_url

__all__ = [
    "DEFAULT_LANE",
    "Anthropic",
    "Config",
    "ConfigError",
    "Http",
    "Intake",
    "Lane",
    "Log",
    "Park",
    "Poll",
    "Redis",
    "Secret",
    "SinkSettings",
    "Submit",
    "find_config",
    "load_config",
    "redact_url",
]
