"""The settings: what they are called, what they may be, and where each one came from.

The environment goes before config.toml, and config.toml before the defaults. Nothing is read behind the caller's back:
`Settings()` is the defaults, `load_settings()` reads the file and the environment.

Whoever mistyped a setting should learn of every mistake at once, in plain words, and no message, `repr` or `describe()`
may show a secret.
"""

from qiyu.config.loading import CONFIG_FILE, ENV_PREFIX, load_settings
from qiyu.config.printing import MASK, describe
from qiyu.config.safety import is_loopback, require_safe_secret
from qiyu.config.secret import SECRET_FILE, existing_secret, installation_secret, load_or_create_secret
from qiyu.config.settings import Settings
from qiyu.config.types import SECRET_CHARS, hosts_of

__all__ = [
    "CONFIG_FILE",
    "ENV_PREFIX",
    "MASK",
    "SECRET_CHARS",
    "SECRET_FILE",
    "Settings",
    "describe",
    "existing_secret",
    "hosts_of",
    "installation_secret",
    "is_loopback",
    "load_or_create_secret",
    "load_settings",
    "require_safe_secret",
]
