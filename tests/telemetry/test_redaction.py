"""What is taken out of a text, what stays, and that a hostile text costs no more than its length."""

from __future__ import annotations

import base64
import json
import re

import pytest

from openhands_otel.telemetry.redaction import REDACTED, Redaction

LETTERS = "plantedQ7w3R9t2Y5u8"
TOKEN = LETTERS * 2
WEB_TOKEN = ".".join(base64.urlsafe_b64encode(b'{"planted":4711}').decode().rstrip("=") for _ in range(3))
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{TOKEN}\n{TOKEN}\n-----END RSA PRIVATE KEY-----"

SECRETS = [
    f"sk-proj-{TOKEN}",
    f"sk-ant-api03-{TOKEN}-{LETTERS}",
    f"sk_live_{TOKEN}",
    "AKIAPLANTED123456789",
    f"ghp_{TOKEN}",
    f"gho_{TOKEN}",
    f"github_pat_{TOKEN}",
    f"glpat-{TOKEN}",
    f"AIza{TOKEN}",
    f"ya29.{TOKEN}",
    f"xoxb-4711-{TOKEN}",
    f"xapp-1-{TOKEN}",
    f"https://hooks.slack.com/services/{LETTERS}/{LETTERS}",
    f"hf_{TOKEN}",
    f"npm_{TOKEN}",
    f"pypi-{TOKEN}",
    f"SG.{LETTERS}.{TOKEN}",
    WEB_TOKEN,
    PEM,
    PEM[:70],
    PEM.replace("\n", "\\n"),
    f"Authorization: Bearer {TOKEN}",
    f"Authorization: Basic {TOKEN}==",
    f"'authorization': 'token {TOKEN}'",
    f"curl -H 'X-Api-Key: {TOKEN}' https://example.test",
    f"curl -u planted:{TOKEN} https://example.test",
    f"bearer {TOKEN}",
    "password=planted",
    "PASSWORD: planted",
    "db_password = 'planted horse battery staple'",
    json.dumps({"password": 'planted "horse" battery', "n": 1}),
    json.dumps(json.dumps({"client_secret": "planted horse battery"})),
    "passwd:planted&next=1",
    f"AWS_SECRET_ACCESS_KEY={TOKEN}",
    f"DefaultEndpointsProtocol=https;AccountKey={TOKEN};EndpointSuffix=x",
    f"export OPENAI_API_KEY={LETTERS}",
    "mysql --password planted",
    f"--api-key={LETTERS}",
    "postgresql://user:planted@db.test:5432/name",
    "redis://:planted@cache.test",
    "mongodb+srv://user:planted/with/slash@db.test",
    f"https://{LETTERS}@git.test/repo.git",
    f"https://maps.test/api?key={LETTERS}&q=1",
    f"Set-Cookie: {LETTERS}",
]


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:24])
@pytest.mark.parametrize("around", ["{}", "before {} behind", 'x = "{}"', "line\n{}\nline"])
def test_a_secret_is_taken_out(secret: str, around: str) -> None:
    redacted = Redaction(environ={}).text(around.format(secret))
    assert "planted" not in redacted.lower(), redacted
    assert REDACTED in redacted


@pytest.mark.parametrize(
    "text",
    [
        "The author of src/app.py wrote 5 tests; see https://example.test/docs?page=2#top and mail a@example.test.",
        "def f(a: int = 1) -> dict[str, int]:\n    return {'a': a, 'keyboard': 2}",
        "$ ls -la /tmp/work\ntotal 0\n-rw-r--r-- 1 user user 0 Nov 22 21:00 monkey.txt",
        "Risk assessment: task-list, disk-usage, ask-me-anything-you-like-today.",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redaction(environ={}).text(text) == text


def test_values_of_the_environment_are_taken_out_by_the_names_of_their_variables() -> None:
    environ = {"DB_PASS": "planted-1", "SERVICE_KEY": "planted 2", "SENTRY_DSN": "planted-3", "AUTH": "on", "A": "word"}
    redacted = Redaction(environ=environ).text("planted-1 planted%202 planted 2 planted-3 on word")
    assert redacted == " ".join([REDACTED] * 4) + " on word"


def test_secrets_that_are_known_are_taken_out_however_they_are_spelled() -> None:
    secret = 'pla"nted/4711'
    text = f"{secret} {json.dumps({'a': secret})} x=pla%22nted%2F4711"
    redacted = Redaction(environ={}).text(text, {secret, "pla"})
    assert "nted" not in redacted


def test_further_patterns_can_be_given() -> None:
    redaction = Redaction([r"ACME-\d+", r"(?i)internal-\w+"], environ={})
    assert redaction.text("ACME-4711 and Internal-name") == f"{REDACTED} and {REDACTED}"
    with pytest.raises(re.error):
        Redaction(["("])


HOSTILE = ["a", "password", 'password="', "password='a ", "://a", "a:", "token \\", "-----BEGIN PRIVATE KEY-----"]
HOSTILE += ["eyJaaaaa.", "sk-", "--token", " -u a", "Bearer ", "key_", '\\"', "password     "]


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_hostile_text_costs_no_more_than_its_length(unit: str) -> None:
    """A pattern that backtracks over it again and again would take hours: the runner's limit ends the test then."""
    Redaction(environ={}).text(unit * (100_000 // len(unit)))
