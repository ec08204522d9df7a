"""How a client authenticates: with a secret, a key, an assertion of somebody else's, or a certificate.

An object of these is passed as `client_auth=` to `TokenEndpoint`, to `discover` and to the presets. Keys, certificates
and secrets that are given as paths or callables are read before each token request, so that they can be rotated.
"""

from ._oauth.authentication import (
    ClientAssertion,
    ClientAuth,
    ClientSecretBasic,
    ClientSecretJWT,
    ClientSecretPost,
    MutualTLS,
    PrivateKeyJWT,
)

__all__ = [
    "ClientAssertion",
    "ClientAuth",
    "ClientSecretBasic",
    "ClientSecretJWT",
    "ClientSecretPost",
    "MutualTLS",
    "PrivateKeyJWT",
]
