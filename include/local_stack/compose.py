"""The environment file of docker-compose.yaml."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from local_stack.seaweedfs import REGION

S3_URL = "http://seaweedfs:8333"
BEDROCK_URL = "http://bedrock-simulator:8090"


def write_environment_file(path: Path) -> bool:
    """Write the file with new secrets and the addresses of the ``local`` profile, and return whether it was written.

    One that exists stays as it is: the database knows its password, and connections are encrypted with its key.
    """
    if path.exists():
        return False
    values = {
        "POSTGRES_PASSWORD": secrets.token_hex(24),
        "AIRFLOW_SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW_JWT_SECRET": secrets.token_hex(64),
        "AIRFLOW_FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "AWS_ACCESS_KEY_ID": "local-stack",
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(24),
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_S3": S3_URL,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": BEDROCK_URL,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    return True
