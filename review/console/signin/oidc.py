"""Sign-in with OpenID Connect: the code flow with PKCE, state and nonce, by Authlib."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from authlib.integrations.base_client import OAuthError
from authlib.integrations.starlette_client import OAuth
from joserfc.errors import JoseError
from starlette.requests import Request
from starlette.responses import Response

from rankline.io.files import first_line
from review.console.errors import Forbidden, NotSignedIn
from review.console.settings import LOOPBACK_NAMES, OidcSettings

LEEWAY_S = 30  # by which the clocks of issuer and console may differ
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


class OidcClient:
    """Sends users to the issuer and checks what they come back with."""

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        is_local = urlsplit(settings.issuer).hostname in LOOPBACK_NAMES  # a proxy cannot reach these
        self._client = OAuth().register(
            "issuer",
            client_id=settings.client_id,
            client_secret=settings.client_secret,
            server_metadata_url=f"{settings.issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={
                "scope": settings.scope, "code_challenge_method": "S256", "timeout": 10, "trust_env": not is_local,
            },
        )  # fmt: skip

    async def redirect(self, request: Request, callback: str) -> Response:
        """Send the user to the issuer, which sends them back to ``callback``; the session remembers state and nonce."""
        try:
            response: Response = await self._client.authorize_redirect(request, callback)
        except Exception as error:  # the HTTP client and Authlib have many
            raise self._unreachable(error) from error
        return response

    async def user(self, request: Request) -> tuple[str, tuple[str, ...]]:
        """The user who comes back, and the user's groups.

        Raises:
            NotSignedIn: the issuer refused, or its answer is not for this sign-in of this client.
            Forbidden: the issuer does not vouch for the address.
        """
        userinfo = await self._userinfo(request)
        settings = self._settings
        name = userinfo.get(settings.user_claim)
        if not isinstance(name, str) or not name.strip():
            raise Forbidden(
                f"the issuer says no {settings.user_claim} of you",
                expected=f"the claim {settings.user_claim}",
                found=", ".join(sorted(userinfo)),
                hint="--user-claim names another, --scope asks for more",
            )
        if settings.user_claim == "email":
            self._require_verified(name, userinfo.get("email_verified"))
        groups = userinfo.get(settings.groups_claim, [])
        return name.strip(), tuple(str(group) for group in groups) if isinstance(groups, list) else ()

    def _require_verified(self, address: str, verified: object) -> None:
        """Refuse an address that anybody could have written into their profile; some issuers send "true" as a text."""
        is_absent = verified is None and self._settings.unverified_email
        if verified is not True and verified != "true" and not is_absent:
            raise Forbidden(
                "your address is not verified",
                expected=f"email_verified is true for {address}",
                found="the issuer does not say" if verified is None else f"email_verified is {verified!r}"[:100],
                hint="--user-claim names another claim; --unverified-email is for an issuer that does not send it",
            )

    async def _userinfo(self, request: Request) -> dict[str, Any]:
        settings = self._settings
        required = {
            "iss": {"essential": True, "value": settings.issuer},
            "aud": {"essential": True, "value": settings.client_id},
            "exp": {"essential": True},
            "iat": {"essential": True},
            "sub": {"essential": True},
            "nonce": {"essential": True},
        }
        try:
            metadata = await self._client.load_server_metadata()
            offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
            # an issuer that offers "none" or a shared secret does not get either
            metadata["id_token_signing_alg_values_supported"] = [name for name in offered if name in ALGORITHMS]
            token = await self._client.authorize_access_token(request, claims_options=required, leeway=LEEWAY_S)
        except (OAuthError, JoseError, ValueError) as error:
            raise NotSignedIn(
                "the sign-in was not accepted",
                expected="an answer of the issuer to this sign-in",
                found=first_line(error)[:200],
                hint="sign in again; if that fails too, the console's client at the issuer is set up differently",
            ) from error
        except Exception as error:
            raise self._unreachable(error) from error
        if not token.get("userinfo"):
            raise NotSignedIn("the issuer did not say who you are", expected="an id_token", found="none")
        return dict(token["userinfo"])

    def _unreachable(self, error: Exception) -> NotSignedIn:
        return NotSignedIn(
            "the issuer cannot sign you in now",
            expected="an answer of the issuer",
            found=first_line(error)[:200],
            where=self._settings.issuer,
            hint="try again later; tokens of scripts work meanwhile",
        )
