"""Secrets of many shapes, planted where a program of strangers leaves them; no part of any may be found afterwards."""

import secrets
import string
from typing import NamedTuple

LETTERS = string.ascii_letters + string.digits


class Canary(NamedTuple):
    """A secret, and the items of a command line that give it away."""

    secret: str
    argv: list[str]

    @property
    def sentence(self) -> str:
        """The same as somebody would write it into a label, a name or a prompt."""
        return " ".join(self.argv)


def _random(length: int, alphabet: str = LETTERS) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


def _shaped() -> dict[str, str]:
    """Secrets that are known by their shape, wherever they stand."""
    hexadecimal, capital = "0123456789abcdef", string.ascii_uppercase + string.digits
    return {
        "hugging face": "hf_" + _random(34),
        "openai": "sk-proj-" + _random(40),
        "anthropic": "sk-ant-api03-" + _random(40),
        "github": "ghp_" + _random(36),
        "github fine-grained": f"github_pat_{_random(22)}_{_random(59)}",
        "gitlab": "glpat-" + _random(20),
        "slack": f"xoxb-{_random(12, string.digits)}-{_random(24)}",
        "aws": "AKIA" + _random(16, capital),
        "google": "AIza" + _random(35),
        "google oauth": "ya29." + _random(60),
        "nvidia": "nvapi-" + _random(64),
        "npm": "npm_" + _random(36),
        "pypi": "pypi-AgEIcHlwaS5vcmc" + _random(60),
        "docker": "dckr_pat_" + _random(27),
        "stripe": "sk_live_" + _random(24),
        "sendgrid": f"SG.{_random(22)}.{_random(43)}",
        "vault": "hvs." + _random(90),
        "databricks": "dapi" + _random(32, hexadecimal),
        "web token": f"eyJ{_random(20)}.eyJ{_random(40)}.{_random(43)}",
        "private key": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{_random(70)}\n{_random(70)}\n-----END OPENSSH PRIVATE KEY-----",
    }


def canaries() -> dict[str, Canary]:
    """Secrets by shape and by announcement; new ones each time, so that none can be found from another run."""
    planted = {kind: Canary(secret, [secret]) for kind, secret in _shaped().items()}
    words = {kind: "Zq" + _random(14) for kind in ANNOUNCEMENTS}
    for kind, template in ANNOUNCEMENTS.items():
        planted[kind] = Canary(words[kind], [item.replace("{}", words[kind]) for item in template])
    return planted


ANNOUNCEMENTS: dict[str, list[str]] = {
    "an option": ["--password", "{}"],
    "an option with its value": ["--hf-token={}"],
    "an option of one dash": ["-api-key", "{}"],
    "a variable": ["MY_SECRET={}"],
    "a password in an address": ["https://user:{}@example.org/repository.git"],
    "a token in an address": ["git+https://{}@github.com/org/private"],
    "a database": ["postgresql://reader:{}@db.example.org:5432/runs?sslmode=require"],
    "a query of an address": ["https://example.org/v1?model=m&api_key={}&n=1"],
    "a header": ["-H", "Authorization: Bearer {}"],
    "another header": ["-H", "X-Api-Key: {}"],
    "a cookie": ["-H", "Cookie: session={}"],
    "basic authentication": ["curl", "-u", "user:{}"],
    "azure": [
        "DefaultEndpointsProtocol=https;AccountName=runs;AccountKey={}==;EndpointSuffix=core.windows.net"
    ],
    "azure's signature": ["https://runs.blob.core.windows.net/c?sv=2026-01-01&sig={}%3D"],
    "a shell's line": ["-c", "export WANDB_API_KEY='{}' && python train.py --token {}"],
    "json": ['{"model": "m", "client_secret": "{}"}'],
    "json in a string": ['"{\\"api_key\\": \\"{}\\"}"'],
    "a configuration": ["password: {}"],
}
