"""The four views that are kept in stores, with what each does about an event it cannot take in."""

from typing import NamedTuple

from infra.adapters.chdb_audit import AuditView
from infra.adapters.chdb_engine import Analytics
from infra.adapters.chdb_sink import AnalyticsStore
from infra.adapters.chdb_usage import UsageView
from infra.adapters.row_balances import BalancesView
from infra.adapters.row_directory import DirectoryView
from infra.adapters.row_views import Catalog, RowStore
from projections.engine import Policy
from projections.ports import Store

ANALYTICS_LINGER = 0.2
"""Seconds between small batches for the analytics engine, which prefers few large blocks."""


class Kept(NamedTuple):
    """A view's store; `linger` is in seconds."""

    store: Store
    policy: Policy
    linger: float


def row_stores(catalog: Catalog) -> list[Kept]:
    """Those in the catalog's own database."""
    return [
        Kept(RowStore(catalog, DirectoryView()), Policy.PARK_ORG, 0.0),
        Kept(RowStore(catalog, BalancesView()), Policy.PARK_ORG, 0.0),
    ]


def analytics_stores(catalog: Catalog, analytics: Analytics) -> list[Kept]:
    """Those in the analytics engine."""
    return [
        Kept(AnalyticsStore(analytics, catalog, UsageView), Policy.PARK_ONE, ANALYTICS_LINGER),
        Kept(AnalyticsStore(analytics, catalog, AuditView), Policy.PARK_ONE, 0.0),
    ]


def all_stores(catalog: Catalog, analytics: Analytics) -> list[Kept]:
    """All four."""
    return [*row_stores(catalog), *analytics_stores(catalog, analytics)]
