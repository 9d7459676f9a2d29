"""Secrets in URLs are refused in settings and masked on pages."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rankline.io.secret_queries import mask_secrets
from rankline.mirror.config import TrackingConfig
from rankline.notifications.config import Webhook

SECRETS = [
    "https://ada:hunter2@mlflow.example",
    "postgresql+psycopg://ada:hun/hunter2@host/db",
    "https://:hunter2@mlflow.example",
    "https://ada:a@hunter2@mlflow.example/x",
    "https://mlflow.example/?access_token=hunter2",
    "https://mlflow.example/a?b=1&sig=hunter2",
    "https://mlflow.example?X-Amz-Signature=hunter2",
    "https://mlflow.example?client_secret=hunter2",
    "postgresql://host/db?sslpassword=hunter2",
    "https://mlflow.example?API-key=hunter2",
]
PLAIN = [
    "https://mlflow.example:5000/path?user=ada",
    "postgresql://ada@host:5432/db?sslmode=require&sslkey=/keys/mine",
    "sqlite:////home/ada/mlflow.db",
    "https://mlflow.example?design=new&monkeys=3",
]


@pytest.mark.parametrize("uri", SECRETS)
def test_a_secret_in_a_url_is_refused_and_masked(uri: str) -> None:
    with pytest.raises(ValidationError, match="a password is no setting"):
        TrackingConfig(tracking_uri=uri)
    assert "hunter2" not in mask_secrets(f'{{"url": "{uri}", "n": 1}}')
    assert mask_secrets(f'{{"url": "{uri}", "n": 1}}').endswith('", "n": 1}')


@pytest.mark.parametrize("uri", PLAIN)
def test_a_url_without_one_stays(uri: str) -> None:
    assert TrackingConfig(tracking_uri=uri).tracking_uri == uri
    assert mask_secrets(uri) == uri


@pytest.mark.parametrize(
    "text",
    [
        '{"Authorization": "Bearer hunter2"}', '"{\\"Authorization\\": \\"Basic hunter2\\"}"',
        "curl -H 'bearer hunter2'", "authorization: hunter2", "Authorization=token hunter2",
    ],
)  # fmt: skip
def test_a_header_that_lets_its_reader_in_is_masked(text: str) -> None:
    assert "hunter2" not in mask_secrets(text)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.slack.com/services/T/B/hunter2", "https://x.webhook.office.com/webhookb2/hunter2",
        "https://prod-1.westeurope.logic.azure.com/workflows/hunter2", "https://HOOKS.slack.com./services/hunter2",
        "https://a.environment.api.powerplatform.com/workflows/hunter2",
    ],
)  # fmt: skip
def test_an_address_of_a_chat_is_a_secret_with_any_format(url: str) -> None:
    with pytest.raises(ValidationError, match="url_variable"):
        Webhook(url=url)
    assert Webhook(url="https://slack.com.example/hook").url
