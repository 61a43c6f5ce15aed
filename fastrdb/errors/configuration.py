"""Errors of what is built, started or configured wrongly."""

from __future__ import annotations

from .base import FastRDBError


class ConfigurationError(FastRDBError):
    """A crud, a cache or a model was put together in a way that cannot work."""


class TemplateError(ConfigurationError):
    """A key template cannot work; the message says what to change.

    Attributes:
        template: The text of the template.
    """

    def __init__(self, template: str, problem: str) -> None:
        super().__init__(template, problem)
        self.template, self.problem = template, problem

    def __str__(self) -> str:
        return f"template {self.template!r}: {self.problem}"


class UnsupportedModel(ConfigurationError):
    """The model, or the response schema, needs something that fastrdb does not do.

    Attributes:
        subject: Name of the model or schema.
    """

    def __init__(self, subject: str, problem: str) -> None:
        super().__init__(subject, problem)
        self.subject, self.problem = subject, problem

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}"


class SettingRefused(ConfigurationError, ValueError):
    """A setting is missing, or its value means nothing.

    Attributes:
        setting: Name of the argument, or of the environment variable.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(setting, problem)
        self.setting, self.problem = setting, problem

    def __str__(self) -> str:
        return f"{self.setting}: {self.problem}"


class UrlRefused(SettingRefused):
    """A URL cannot be used; the message says what to write, and never repeats a password."""


class MissingExtra(ConfigurationError, ImportError):
    """An optional package is not installed.

    Attributes:
        package: What Python could not import.
        extra: The extra of fastrdb that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, extra)
        self.package, self.extra = package, extra

    def __str__(self) -> str:
        return f"{self.package} is not installed: pip install 'fastrdb[{self.extra}]'"


class NotStarted(FastRDBError, RuntimeError):
    """Something was used before it was started, or after it was shut down."""


class DatabaseDependencyError(NotStarted):
    """The dependencies of request handlers were asked for before ``configure_database_dependencies``."""


class AlembicError(FastRDBError):
    """A migration cannot be configured in this way, or a hook of one failed; its cause is kept."""
