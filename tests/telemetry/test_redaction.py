"""What is taken out of a text, what stays, and that a hostile text costs no more than its length."""

from __future__ import annotations

import base64
import json
import re
import time

import pytest

from openhands_otel._internal.tracing.redaction import REDACTED, Redaction

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
    f"Cookie: theme=dark; sid={LETTERS}",
    f"curl -H 'Authorization: ApiKey {TOKEN}' https://example.test",
    "Passphrase: four planted words here",
    f"DB_PASS={LETTERS}",
    f"export OPENAI_KEY={LETTERS}",
    f"private key: {LETTERS}",
    "password: str = 'planted'",
    "if password == 'planted':",
    "password ?= planted",
    "os.environ['DB_PASSWORD'] = 'planted'",
    "os.environ.setdefault('API_KEY', 'planted')",
    "ALTER USER a PASSWORD 'planted'",
    "password: 'it''s planted'",
    "password='a\\' planted'",
    "password='''planted'''",
    "password = f'a planted'",
    "password=ab,planted",
    "password=ab&planted",
    "passwords: ['a', 'planted']",
    "<db><password>planted</password></db>",
    "<add key='DbPassword' value='planted'/>",
    "{'name': 'DB_PASSWORD', 'value': 'planted'}",
    "curl --user=a:planted https://example.test",
    "postgres://user:p@planted@db.test/name",
    f"https://s3.test/a?X-Amz-Signature={LETTERS}",
    f"api_key%3D{LETTERS}",
    f"a%3Dghp_{TOKEN}",
    f"prefix_ghp_{TOKEN}",
    f"{{a\\nghp_{TOKEN}}}",
    f"\x1b[32mghp_{TOKEN}\x1b[0m",
    f"\x1b[01;31mghp_\x1b[m\x1b[K{TOKEN}",
    f"\\u001b[34mpassword\\u001b[0m: {LETTERS}",
    f"gldt-{TOKEN}",
    f"whsec_{TOKEN}",
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


def test_a_block_of_yaml_behind_a_name_is_taken_out() -> None:
    assert Redaction(environ={}).text("password: |\n  planted\n  planted\nuser: a") == f"password: {REDACTED}user: a"


def test_a_short_secret_hides_no_part_of_a_longer_one() -> None:
    text = f"ghp_{TOKEN} AKIAPLANTED123456789"
    redacted = Redaction(environ={}).text(text, {"4", "P", "w3"})
    assert redacted == f"{REDACTED} {REDACTED}"


HOSTILE = ["a", "password", 'password="', "password='a ", "://a", "a:", "token \\", "-----BEGIN PRIVATE KEY-----"]
HOSTILE += ["eyJaaaaa.", "sk-", "--token", " -u a", "Bearer ", "key_", '\\"', "password     "]
HOSTILE += ["-eyJ", "token=[", "token={", "token=''", '("token', "<_key", "://:@", "cookie:"]
HOSTILE += ["token=|\n a\n", "a,", "_key-"]


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_hostile_text_costs_no_more_than_its_length(unit: str) -> None:
    """Steps of a pattern are not to be seen: so ten times the text may take ten times as long, not a hundred times."""
    short, long = (_least_s(unit * (length // len(unit))) for length in (20_000, 200_000))
    assert long < 40 * short + 0.05


def _least_s(text: str) -> float:
    """CPU time; the least of three, since others use the machine too."""
    redaction, took = Redaction(environ={}), list[float]()
    for number in range(3):
        begun = time.thread_time()
        redaction.text(f"{text}{number}")
        took.append(time.thread_time() - begun)
    return min(took)
