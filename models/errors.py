"""The project's one exception tree. Every message says what is wrong and what to do next.

It stands in `models` because that is the one package which all others may import. Outside the tree
is only `server.protocol.errors.ProtocolError`: the protocol imports nothing of ours.

AqaaError
├── BundleError            a model bundle, or a file in it, is missing, damaged or does not fit
├── InputError             what a caller gave is not usable
│   ├── AudioError         audio of an unusable kind, length or content
│   │   └── NoSpeechError  a recording in which nobody speaks
│   ├── TokenError         token ids outside their codebook, or groups out of phase
│   ├── PromptError        an empty, over-long or out-of-vocabulary prompt
│   └── UnknownVoiceError  a voice that the bundle does not have
├── CallError              the model's call of a function that is no legal one; not carried out
├── StreamClosedError      a stream object was used after `flush` or after a fault closed it
├── EngineError            the decoder cannot go on
│   ├── EngineDiedError    its process or worker is gone
│   └── EngineBusyError    it refuses for now; try again later
├── ConfigError            settings that contradict each other or cannot be read
├── StoreError             what several gateways share cannot be reached
├── CapacityError          the server is full; the session is refused at once
├── ConnectionLostError    a client's conversation with a server could not begin or go on
├── UnauthorizedError      no key, or one that the server does not know
├── OriginError            a web page that may not use the server
├── ModelNotFoundError     a model that the server does not have
└── MissingDependencyError an optional package is needed for this and is not installed
"""


class AqaaError(Exception):
    """Root of everything that this project raises on purpose."""


class BundleError(AqaaError):
    """A model bundle, or a file in it, is missing, damaged or does not fit."""


class InputError(AqaaError):
    """What a caller gave is not usable; the callee is as it was before the call."""


class AudioError(InputError):
    """Audio of an unusable kind, length or content."""


class NoSpeechError(AudioError):
    """A recording in which nobody speaks, or that is too short for a word."""


class TokenError(InputError):
    """Token ids outside their codebook, or groups out of phase."""


class PromptError(InputError):
    """An empty, over-long or out-of-vocabulary prompt."""


class UnknownVoiceError(InputError):
    """A voice that the bundle does not have; the message lists those that it has."""


class CallError(AqaaError):
    """The model began to call a function, and what it wrote is no legal call: nobody sees it."""


class StreamClosedError(AqaaError):
    """A stream object was used after `flush`, or after a fault closed it."""


class EngineError(AqaaError):
    """The decoder cannot go on with this request."""


class EngineDiedError(EngineError):
    """The decoder is gone or gives no ids; an engine that is open finds out when it is back."""


class EngineBusyError(EngineError):
    """The decoder refuses for now; try again later."""


class ConfigError(AqaaError):
    """Settings that contradict each other or cannot be read."""


class StoreError(AqaaError):
    """What several gateways share cannot be reached for now."""


class CapacityError(AqaaError):
    """The server is full; the session is refused at once and may be tried elsewhere."""


class ConnectionLostError(AqaaError):
    """A client's conversation with a server could not begin, or ended before it was over."""


class UnauthorizedError(AqaaError):
    """No key, or one that this server does not know."""


class OriginError(AqaaError):
    """A web page that may not use this server."""


class ModelNotFoundError(AqaaError):
    """A model that this server does not have."""


class MissingDependencyError(AqaaError):
    """An optional package is needed for this and is not installed; the message names the extra."""
