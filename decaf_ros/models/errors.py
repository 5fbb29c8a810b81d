"""What can go wrong when a model is asked for by name, or asked something."""


class ModelNotFound(Exception):  # noqa: N818 - named for what the user did: gave an id or path that leads to no usable model
    """No usable model behind an id or path. The message names the cause and the way out."""


class OptionsError(ValueError):
    """Options that do not suit a model. The message names the cause and the way out."""


class NoBoxesError(ValueError):
    """A model that cannot be asked for boxes. The message names the cause and the way out."""


class PromptError(ValueError):
    """A sentence that a model cannot take. The message names the cause and the way out."""
