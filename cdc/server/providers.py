"""Who runs a server, and how its settings are changed there.

Sources, each read for the names of its parameters and roles:
https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/PostgreSQL.Concepts.General.FeatureSupport.LogicalReplication.html
https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/AuroraPostgreSQL.Replication.Logical.Configure.html
https://cloud.google.com/sql/docs/postgres/replication/configure-logical-replication
https://learn.microsoft.com/en-us/azure/postgresql/flexible-server/concepts-logical
https://supabase.com/docs/guides/database/replication/manual-replication-faq
https://supabase.com/docs/guides/database/custom-postgres-config
https://neon.com/docs/guides/logical-replication-neon
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Provider:
    """A place where servers run, and how they are changed there."""

    name: str
    traces: frozenset[str]
    """Settings, roles and extensions that are found there only."""
    logical: str
    """How wal_level becomes logical."""
    setting: str
    """How `{name}` is set to `{value}`, a number in the setting's own unit; `{unit}` where units are understood."""
    at_once: str = "."
    """What follows `setting` where a running server takes it."""
    at_restart: str = "."
    """What follows `setting` where a restart is needed."""
    note: str = ""
    """What else a reader meets there."""
    replication_role: str | None = None
    """The role to grant where the attribute REPLICATION cannot be given."""
    granted_by: str = ""
    """Who may give the attribute, if that takes more than it does elsewhere."""

    def set(self, name: str, value: int, unit: str = "", *, restart: bool = False) -> str:
        """How a setting is changed; `unit` is the one in which the setting counts."""
        return self.setting.format(name=name, value=value, unit=unit) + (self.at_restart if restart else self.at_once)

    def let_replicate(self, role: str) -> str:
        """How a role (as SQL writes it) that is there comes to read the log."""
        if self.replication_role is not None:
            return f"GRANT {self.replication_role} TO {role};"
        return f"ALTER ROLE {role} REPLICATION;" + (f" -- {self.granted_by}" if self.granted_by else "")


AMAZON: Final = Provider(
    "Amazon RDS or Aurora",
    frozenset({"rds.logical_replication", "rds.extensions", "rds_superuser"}),
    "Set rds.logical_replication = 1 in the parameter group (of the cluster, with Aurora), then reboot.",
    "Set {name} = {value} in the parameter group",
    at_restart=", then reboot.",
    replication_role="rds_replication",
)
GOOGLE: Final = Provider(
    "Google Cloud SQL",
    frozenset({"cloudsql.logical_decoding", "cloudsqlsuperuser"}),
    "Set the flag cloudsql.logical_decoding = on; the instance restarts.",
    "Set the flag {name} = {value}",
    at_restart="; the instance restarts.",
)
AZURE: Final = Provider(
    "Azure Database for PostgreSQL",
    frozenset({"azure.extensions", "azure_pg_admin"}),
    "Set the server parameter wal_level = logical, then restart the server.",
    "Set the server parameter {name} = {value}",
    at_restart=", then restart the server.",
    granted_by="run by one who has REPLICATION: ALTER ROLE administrator REPLICATION;",
)
SUPABASE: Final = Provider(
    "Supabase",
    frozenset({"supabase_admin"}),
    "wal_level is logical on Supabase by default: ask its support why it is not here.",
    "supabase --experimental --project-ref REF postgres-config update --config {name}={value}{unit}",
    at_once="",
    at_restart="",
    note="use the direct connection: replication does not pass the pooler",
)
NEON: Final = Provider(
    "Neon",
    frozenset({"neon_superuser", "neon"}),
    "Enable logical replication in the project's settings.",
    "Drop what nobody uses: Neon manages {name} itself",
    note="an inactive slot is removed after about 40 hours if others are active, and by restoring a branch",
)
_MANAGED: Final = (SUPABASE, NEON, AMAZON, GOOGLE, AZURE)

SELF_HOSTED: Final = Provider(
    "a server of your own",
    frozenset(),
    "ALTER SYSTEM SET wal_level = 'logical'; -- then restart the server",
    "ALTER SYSTEM SET {name} = '{value}{unit}';",
    at_once="\nSELECT pg_reload_conf();",
    at_restart=" -- then restart the server",
)


def provider_of(traces: Set[str]) -> Provider:
    """Who runs a server, told by what is only found there; nothing found stands for a server of one's own."""
    for provider in _MANAGED:
        if provider.traces & traces or (provider is NEON and any(trace.startswith("neon.") for trace in traces)):
            return provider
    return SELF_HOSTED
