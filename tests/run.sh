#!/usr/bin/env bash
# Installs everything into .venv and runs the checks and the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r tests/requirements.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy portraitgen app.py
.venv/bin/python -m pytest --numprocesses auto --dist loadfile --durations 10 "$@"
