"""A token issuer for development and tests: OpenID Connect for people, JWT-SVIDs for workloads.

It signs whatever it is asked to within this process. Over the network, on
loopback alone, it serves nothing but its discovery document and its keys.
"""

import asyncio
import json
import ssl
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

import jwt
from aiohttp import web
from aiohttp.typedefs import Handler
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from broker.dev.files import write_private
from broker.dev.pki import DevAuthority
from broker.dev.processes import free_port
from broker.model import JsonValue
from broker.secret import Secret, SecretText

AUDIENCE = "credbroker"
TOKEN_LIFETIME = timedelta(minutes=15)

_HOST = "127.0.0.1"
_START_SECONDS = 10.0


class DevIssuer:
    """A running issuer. Its key, hence its tokens, survive a restart in the same folder.

    Attributes:
        url: What ``iss`` says, and where the discovery document is.
        jwks_url: Its keys, for OIDC tokens.
        bundle_url: The same keys as a SPIFFE bundle, for JWT-SVIDs.
        ca_file: CA certificate of its listener.
    """

    def __init__(self, folder: Path, port: int, authority: DevAuthority) -> None:
        self.url = f"https://{_HOST}:{port}"
        self.jwks_url = f"{self.url}/jwks.json"
        self.bundle_url = f"{self.url}/bundle.json"
        self.ca_file = folder / "ca.pem"
        self._folder = folder
        self._port = port
        self._key = _load_or_make_key(folder / "signing.key")
        self._tls = self._server_context(authority)
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="token issuer", daemon=True)

    @classmethod
    def start(cls, folder: Path, authority: DevAuthority, *, port: int | None = None) -> "DevIssuer":
        """Start an issuer on a thread of its own and return when it serves.

        Args:
            folder: Holds its key and certificate; made when it is not there.
            authority: Issues its certificate.
            port: Port of 127.0.0.1; a free one by default. It is part of the
                issuer's name.

        Raises:
            OSError: when the port is taken.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        issuer = cls(folder, port or free_port(), authority)
        issuer._thread.start()
        issuer._started.result(_START_SECONDS)
        return issuer

    def token(
        self,
        subject: str,
        *,
        audience: str | Sequence[str] = AUDIENCE,
        lifetime: timedelta = TOKEN_LIFETIME,
        claims: Mapping[str, JsonValue] | None = None,
    ) -> SecretText:
        """Return a signed OIDC token.

        Args:
            subject: ``sub``.
            audience: ``aud``.
            lifetime: From now; a negative one gives an expired token.
            claims: Further claims such as ``groups``; they may replace any.
        """
        return self._sign({"iss": self.url, "sub": subject, **_times(lifetime), "aud": audience, **(claims or {})})

    def svid(
        self, spiffe_id: str, *, audience: str | Sequence[str] = AUDIENCE, lifetime: timedelta = TOKEN_LIFETIME
    ) -> SecretText:
        """Return a JWT-SVID.

        Args:
            spiffe_id: The workload.
            audience: ``aud``.
            lifetime: From now; a negative one gives an expired SVID.
        """
        return self._sign({"sub": spiffe_id, **_times(lifetime), "aud": audience})

    @property
    def public_key_pem(self) -> str:
        """The key that verifies its tokens, for who is configured with a key instead of an address."""
        key = self._key.public_key()
        return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()

    def stop(self) -> None:
        """Stop serving and wait for that."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def __enter__(self) -> "DevIssuer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _sign(self, claims: Mapping[str, object]) -> SecretText:
        return Secret(jwt.encode(dict(claims), self._key, "ES256", headers={"kid": self._key_id}))

    @property
    def _key_id(self) -> str:
        numbers = self._key.public_key().public_numbers()
        return f"{numbers.x:064x}"[:16]

    def _keys(self, use: str) -> dict[str, object]:
        jwk = json.loads(ECAlgorithm.to_jwk(self._key.public_key()))
        return {"keys": [{**jwk, "kid": self._key_id, "use": use}]}

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", _constant(self._discovery()))
        app.router.add_get("/jwks.json", _constant(self._keys("sig")))
        app.router.add_get("/bundle.json", _constant(self._keys("jwt-svid")))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, _HOST, self._port, ssl_context=self._tls).start()
            self._started.set_result(None)
            await self._stop.wait()
        finally:
            await runner.cleanup()

    def _discovery(self) -> dict[str, object]:
        return {
            "issuer": self.url,
            "jwks_uri": self.jwks_url,
            "id_token_signing_alg_values_supported": ["ES256"],
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
        }

    def _server_context(self, authority: DevAuthority) -> ssl.SSLContext:
        certificate, key = authority.issue(names=["localhost"], addresses=[_HOST], lifetime=timedelta(days=90))
        self.ca_file.write_bytes(authority.certificate_pem)
        (self._folder / "server.pem").write_bytes(certificate)
        write_private(self._folder / "server.key", key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._folder / "server.pem", self._folder / "server.key")
        return context


def _times(lifetime: timedelta) -> dict[str, object]:
    now = datetime.now(UTC)
    return {"iat": now, "exp": now + lifetime, "jti": str(uuid.uuid4())}


def _constant(value: Mapping[str, object]) -> Handler:
    body = json.dumps(value)

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=body, content_type="application/json")

    return answer


def _load_or_make_key(file: Path) -> ec.EllipticCurvePrivateKey:
    if file.exists():
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key
    made = ec.generate_private_key(ec.SECP256R1())
    pem = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(file, pem)
    return made
