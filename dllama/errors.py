"""Every error a user can meet, as a drawn tree. Each message is a full sentence that says what
happened, what was expected and what to do.

    DllamaError
    |- ModelFileError        a model or tokenizer file is not what it says it is
    |  `- UnknownTensorType  a tensor has a type this version cannot compute with
    |- ConfigError           flags or sizes that do not fit each other
    |  |- ShardError         a cut of the model that cannot be made
    |  |- TooLittleMemory    a model needs more than its nodes have free
    |  `- NotDownloaded      a model that is named is not on this machine
    |- TokenizerError        a tokenizer is missing or cannot be built
    |- TemplateError         a chat template is broken or refuses the messages
    |- RequestError          a request that cannot be served as it stands (HTTP 400)
    |- SessionFileError      a saved session cannot be written, read or used here
    |- HubError              a model cannot be downloaded, or not be found by its name
    |  |- ModelNameError     a text that is no name of a model (HTTP 400)
    |  `- NotOnHub           there is no such model, or not of that type (HTTP 404)
    |- EngineBusy            no room for the request now (HTTP 503)
    `- ClusterError          something between nodes
       |- PeerLost           a node left or hung
       `- ProtocolError      a peer speaks another version, or nonsense
"""

from __future__ import annotations


class DllamaError(Exception):
    """The root of all errors that are meant for a user's eyes."""


class ModelFileError(DllamaError):
    """A model or tokenizer file is truncated, corrupt or of an unknown kind."""


class UnknownTensorType(ModelFileError):
    """A tensor is stored in a type that this version cannot compute with."""

    def __init__(self, message: str, *, tensor: str, qtype: str) -> None:
        super().__init__(message)
        self.tensor = tensor
        self.qtype = qtype


class ConfigError(DllamaError):
    """Flags, sizes or figures that do not fit each other or the machine."""


class ShardError(ConfigError):
    """The model cannot be cut as asked."""

    def __init__(self, message: str, *, rank: int | None = None, world_size: int = 0) -> None:
        super().__init__(message)
        self.rank = rank
        self.world_size = world_size


class TooLittleMemory(ConfigError):
    """A model needs more memory than its nodes have free; there may be more at another time."""


class NotDownloaded(ConfigError):
    """A model that flags name could be downloaded, and is not on this machine; `name` is what was
    asked for."""

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class TokenizerError(DllamaError):
    """A tokenizer is missing, or its data does not make one."""


class TemplateError(DllamaError):
    """A chat template is broken, or refuses the messages it was given."""


class RequestError(DllamaError):
    """A request that cannot be served as it stands; `param` names the field at fault."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class SessionFileError(DllamaError):
    """The file of a saved session cannot be written, is damaged or belongs to something else."""


class HubError(DllamaError):
    """A model cannot be downloaded as things are: the network, the disk or what the hub sends."""


class ModelNameError(HubError):
    """A text that is no name of a model."""


class NotOnHub(HubError):
    """There is no such model, at the hub or here; or it is kept from this user, or has no files of
    the type asked for."""


class EngineBusy(DllamaError):
    """There is no room for the request now; `retry_after_s` says when to ask again."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ClusterError(DllamaError):
    """Something went wrong between nodes."""


class PeerLost(ClusterError):
    """A node left, hung or cannot be reached."""

    def __init__(self, message: str, *, rank: int, host: str) -> None:
        super().__init__(message)
        self.rank = rank
        self.host = host


class ProtocolError(ClusterError):
    """A peer speaks another protocol version, or sent what no peer sends."""
