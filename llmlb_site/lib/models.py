"""The number behind every hint: what another process changed, and how to notice without a broker."""

from __future__ import annotations

from django.db import models


class Revision(models.Model):
    """How often a topic has changed. Processes compare it every second; the events are only faster."""

    topic = models.CharField(max_length=40, primary_key=True)
    number = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = "revision"

    def __str__(self) -> str:
        return f"{self.topic} {self.number}"
