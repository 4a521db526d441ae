"""Is every gateway's delivery complete? Kafka is asked, and nothing else: `audit` reads it and judges the numbers that
every record carries. The rules are in gateway.audit.books."""

from gateway.audit.numbers import Range
from gateway.audit.reader import Progress, audit
from gateway.audit.report import Cause, Clash, Lane, Missing, Report

__all__ = ["Cause", "Clash", "Lane", "Missing", "Progress", "Range", "Report", "audit"]
