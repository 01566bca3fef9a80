"""`manage.py create_key --user hana --name ci --permission openai.inference`: mint an API key from a shell."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from access import services
from access.audit import SYSTEM
from access.models import User
from access.permissions import Permission
from access.refusals import Refusal


class Command(BaseCommand):
    help = "Mint an API key and print it: the only time that it can be seen."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", required=True, help="who owns it, and bounds what it may do")
        parser.add_argument("--name", required=True)
        parser.add_argument(
            "--permission", action="append", required=True, choices=Permission.values, help="may be given several times"
        )
        parser.add_argument("--days", type=int, help="how long it is valid; without this, until it is revoked")

    def handle(self, *args: Any, **options: Any) -> None:
        owner = User.objects.filter(username=options["user"]).first()
        if owner is None:
            raise CommandError(f"There is no user {options['user']}.")
        days = options["days"]
        try:
            _, text = services.mint_api_key(
                owner=owner,
                name=options["name"],
                permissions=options["permission"],
                expires_at=timezone.now() + timedelta(days=days) if days is not None else None,
                actor=SYSTEM,
            )
        except Refusal as refusal:
            raise CommandError(str(refusal)) from refusal
        self.stdout.write(text)
